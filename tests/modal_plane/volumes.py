"""Version-2 Volumes of the plane, and Dicts: folders on disk, with file blocks over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from aiohttp import web
from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2 as p

from .asker import ASKER

if TYPE_CHECKING:
    from .plane import Plane

BLOCK = 8 * 1024 * 1024
State: TypeAlias = "tuple[int, int]"


@dataclass
class View:
    """A container's mount of a Volume: the last commits it has loaded, and its own changes."""

    path: Path
    shared: Path
    loaded: dict[str, State] = field(default_factory=dict)

    def reload(self) -> None:
        """Take in what others have committed, but for files that were changed here."""
        mine, theirs = _states(self.path), _states(self.shared)
        changed = {p for p in {*mine, *self.loaded} if mine.get(p) != self.loaded.get(p)}
        for name in {*mine, *theirs} - changed:
            _exchange(self.shared / name, self.path / name, present=name in theirs)
        now = _states(self.path)
        self.loaded = {p: s for p, s in now.items() if p not in changed} | {
            p: s for p, s in self.loaded.items() if p in changed
        }

    def changes(self) -> tuple[dict[str, State], set[str]]:
        """What lies here, and the names of what a commit would upload or remove."""
        mine = _states(self.path)
        return mine, {n for n in {*mine, *self.loaded} if mine.get(n) != self.loaded.get(n)}

    def uncommitted(self) -> int:
        """Bytes that a commit would upload."""
        mine, changed = self.changes()
        return sum(mine[name][0] for name in changed if name in mine)

    def commit(self) -> None:
        """Give others what was changed here; of two commits of a file the last one wins."""
        mine, changed = self.changes()
        for name in changed:
            _exchange(self.path / name, self.shared / name, present=name in mine)
        self.loaded = mine


def _states(top: Path) -> dict[str, State]:
    found = {}
    for path in top.rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file():
                stat = path.stat()
                found[str(path.relative_to(top))] = (stat.st_size, stat.st_mtime_ns)
    return found


def _exchange(source: Path, target: Path, *, present: bool) -> None:
    """Make one file as it is in the other folder, or not there."""
    if not present:
        target.unlink(missing_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.fresh")
    with suppress(FileNotFoundError):
        shutil.copy2(source, fresh)
        fresh.replace(target)


class Volumes:
    """Named folders, and what each container sees of them."""

    def __init__(self: Plane) -> None:
        self.volumes: dict[str, int] = {}
        self.blocks: dict[bytes, bytes] = {}
        self.views: dict[tuple[str, str], View] = {}
        self.bandwidth: float | None = None
        """Bytes of changed files that a commit uploads a second; None: all at once."""
        self.dicts: dict[str, dict[bytes, bytes]] = {}

    def volume_path(self: Plane, name: str) -> Path:
        """The folder behind a Volume, made on first use."""
        folder = self.root / "volumes" / name
        folder.mkdir(parents=True, exist_ok=True)
        self.volumes.setdefault(name, p.VOLUME_FS_VERSION_V2)
        return folder

    def volume_view(self: Plane, name: str, task_id: str) -> Path:
        """The mount of a Volume in a container that starts now."""
        view = View(self.root / "views" / task_id / name, self.volume_path(name))
        view.path.mkdir(parents=True)
        view.reload()
        self.views[task_id, f"vo-{name}"] = view
        return view.path

    async def start_blocks(self: Plane) -> None:
        """Serve file blocks on a loopback port of their own."""
        app = web.Application(client_max_size=2 * BLOCK)
        app.router.add_get("/{volume}/{path:.+}", self._get_block)
        app.router.add_put("/blocks/{digest}", self._put_block)
        self.blocks_url = await self.start_site(app)

    async def VolumeGetOrCreate(self: Plane, request: Any) -> p.VolumeGetOrCreateResponse:
        name, kind = request.deployment_name, request.object_creation_type
        if kind == p.OBJECT_CREATION_TYPE_UNSPECIFIED and name not in self.volumes:
            raise GRPCError(Status.NOT_FOUND, f"Volume '{name}' not found")
        self.volumes.setdefault(name, request.version or p.VOLUME_FS_VERSION_V2)
        metadata = p.VolumeMetadata(name=name, version=self.volumes[name])
        return p.VolumeGetOrCreateResponse(volume_id=f"vo-{name}", metadata=metadata)

    async def VolumeListFiles2(
        self: Plane, request: Any
    ) -> AsyncIterator[p.VolumeListFiles2Response]:
        top, folder = self._resolve(request.volume_id, request.path)
        if not folder.exists():
            if request.path.strip("/"):
                raise GRPCError(Status.NOT_FOUND, f"No such file or directory: {request.path}")
            return
        found = [folder] if folder.is_file() else list(folder.glob(_pattern(request.recursive)))
        yield p.VolumeListFiles2Response(entries=[_entry(path, top) for path in sorted(found)])

    async def VolumeGetFile2(self: Plane, request: Any) -> p.VolumeGetFile2Response:
        top, path = self._resolve(request.volume_id, request.path)
        if not path.is_file():
            raise GRPCError(Status.NOT_FOUND, f"No such file or directory: {request.path}")
        size = path.stat().st_size
        length = min(request.len or size, size - request.start)
        first, last = request.start // BLOCK, -(-(request.start + length) // BLOCK)
        url = f"{self.blocks_url}/{request.volume_id}/{path.relative_to(top)}"
        urls = [
            f"{url}?from={max(i * BLOCK, request.start)}"
            f"&to={min((i + 1) * BLOCK, request.start + length)}"
            for i in range(first, last)
        ]
        return p.VolumeGetFile2Response(get_urls=urls, size=size, start=request.start, len=length)

    async def VolumePutFiles2(self: Plane, request: Any) -> p.VolumePutFiles2Response:
        missing = [
            p.VolumePutFiles2Response.MissingBlock(
                file_index=f,
                block_index=b,
                put_url=f"{self.blocks_url}/blocks/{block.contents_sha256.hex()}",
            )
            for f, file in enumerate(request.files)
            for b, block in enumerate(file.blocks)
            if block.contents_sha256 not in self.blocks
        ]
        if missing:
            return p.VolumePutFiles2Response(missing_blocks=missing)
        for file in request.files:
            _, path = self._resolve(request.volume_id, file.path)
            if path.exists() and request.disallow_overwrite_existing_files:
                raise GRPCError(Status.ALREADY_EXISTS, f"{file.path} exists")
            path.parent.mkdir(parents=True, exist_ok=True)
            blocks = (self.blocks[block.contents_sha256] for block in file.blocks)
            content = b"".join(block.ljust(BLOCK, b"\0") for block in blocks)
            path.write_bytes(content[: file.size])
        return p.VolumePutFiles2Response()

    async def VolumeRemoveFile2(self: Plane, request: Any) -> Empty:
        _, path = self._resolve(request.volume_id, request.path)
        if not path.exists():
            raise GRPCError(Status.NOT_FOUND, f"No such file or directory: {request.path}")
        if path.is_file():
            path.unlink()
        elif request.recursive:
            shutil.rmtree(path)
        else:
            raise GRPCError(Status.INVALID_ARGUMENT, f"{request.path} is a directory")
        return Empty()

    async def VolumeCommit(self: Plane, request: Any) -> p.VolumeCommitResponse:
        if view := self.views.get((ASKER.get(), request.volume_id)):
            if self.bandwidth:
                await asyncio.sleep(view.uncommitted() / self.bandwidth)
            view.commit()
        return p.VolumeCommitResponse(skip_reload=True)

    async def VolumeReload(self: Plane, request: Any) -> Empty:
        if view := self.views.get((ASKER.get(), request.volume_id)):
            view.reload()
        return Empty()

    async def DictGetOrCreate(self: Plane, request: Any) -> p.DictGetOrCreateResponse:
        name = f"{request.environment_name or 'main'}/{request.deployment_name}"
        kind = request.object_creation_type
        if kind == p.OBJECT_CREATION_TYPE_UNSPECIFIED and name not in self.dicts:
            raise GRPCError(Status.NOT_FOUND, f"Dict '{request.deployment_name}' not found")
        self.dicts.setdefault(name, {})
        metadata = p.DictMetadata(name=request.deployment_name)
        return p.DictGetOrCreateResponse(dict_id=f"di-{name}", metadata=metadata)

    async def DictUpdate(self: Plane, request: Any) -> p.DictUpdateResponse:
        entries = self._dict(request.dict_id)
        known = [update.key for update in request.updates if update.key in entries]
        for update in request.updates:
            if not (request.if_not_exists and update.key in known):
                entries[update.key] = update.value
        return p.DictUpdateResponse(created=not known)

    async def DictGet(self: Plane, request: Any) -> p.DictGetResponse:
        value = self._dict(request.dict_id).get(request.key)
        return p.DictGetResponse(found=value is not None, value=value)

    async def DictPop(self: Plane, request: Any) -> p.DictPopResponse:
        value = self._dict(request.dict_id).pop(request.key, None)
        return p.DictPopResponse(found=value is not None, value=value)

    def _dict(self: Plane, dict_id: str) -> dict[bytes, bytes]:
        return self.dicts[dict_id.removeprefix("di-")]

    def bucket_path(self: Plane, name: str) -> Path:
        """The folder that stands for a bucket at another provider."""
        return self.root / "buckets" / name

    def _resolve(self: Plane, volume_id: str, path: str) -> tuple[Path, Path]:
        top = self.volume_path(volume_id.removeprefix("vo-"))
        return top, top / path.lstrip("/")

    async def _get_block(self: Plane, request: web.Request) -> web.Response:
        _, path = self._resolve(request.match_info["volume"], request.match_info["path"])
        start, stop = int(request.query["from"]), int(request.query["to"])
        return web.Response(body=path.read_bytes()[start:stop])

    async def _put_block(self: Plane, request: web.Request) -> web.Response:
        content = await request.read()
        digest = hashlib.sha256(content).digest()
        if digest.hex() != request.match_info["digest"]:
            return web.Response(status=400)
        self.blocks[digest] = content
        return web.Response(body=digest)


def _pattern(recursive: bool) -> str:
    return "**/*" if recursive else "*"


def _entry(path: Path, top: Path) -> p.FileEntry:
    kind = p.FileEntry.DIRECTORY if path.is_dir() else p.FileEntry.FILE
    stat = path.stat()
    return p.FileEntry(
        path=str(path.relative_to(top)), type=kind, mtime=int(stat.st_mtime), size=stat.st_size
    )

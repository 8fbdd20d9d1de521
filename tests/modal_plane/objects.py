"""Environments, mounts, secrets and images of the plane."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2 as p

if TYPE_CHECKING:
    from .plane import Plane

BUILDER = "2026.10"
DEFAULT_ENVIRONMENT = "main"


class Objects:
    """What an app is made of besides functions."""

    def __init__(self: Plane) -> None:
        self.secrets: dict[str, dict[str, str]] = {}
        self.mounts: dict[str, p.MountGetOrCreateRequest] = {}
        self.mount_files: dict[str, bytes] = {}
        self.images: dict[str, p.Image] = {}
        self.workspace = "somebody"
        self.build_failure: list[str] = []
        """Log lines of the next image build, which fails; empty: builds succeed."""

    async def ClientHello(self: Plane, request: Any) -> p.ClientHelloResponse:
        return p.ClientHelloResponse()

    async def WorkspaceNameLookup(self: Plane, request: Any) -> p.WorkspaceNameLookupResponse:
        return p.WorkspaceNameLookupResponse(username=self.workspace)

    async def EnvironmentGetOrCreate(self: Plane, request: Any) -> p.EnvironmentGetOrCreateResponse:
        settings = p.EnvironmentSettings(image_builder_version=BUILDER)
        name = request.deployment_name or DEFAULT_ENVIRONMENT
        metadata = p.EnvironmentMetadata(name=name, settings=settings)
        return p.EnvironmentGetOrCreateResponse(environment_id="en-1", metadata=metadata)

    async def MountGetOrCreate(self: Plane, request: Any) -> p.MountGetOrCreateResponse:
        mount_id = f"mo-{request.deployment_name}" if request.deployment_name else self.new_id("mo")
        self.mounts[mount_id] = request
        return p.MountGetOrCreateResponse(
            mount_id=mount_id,
            handle_metadata=p.MountHandleMetadata(content_checksum_sha256_hex="0"),
        )

    async def MountBatchedCheckExistence(
        self: Plane, request: Any
    ) -> p.MountBatchedCheckExistenceResponse:
        missing = [h for h in request.sha256_hex_hashes if h not in self.mount_files]
        return p.MountBatchedCheckExistenceResponse(missing_sha256_hex_hashes=missing)

    async def MountPutFile(self: Plane, request: Any) -> p.MountPutFileResponse:
        if request.WhichOneof("data_oneof"):
            self.mount_files[request.sha256_hex] = request.data
        return p.MountPutFileResponse(exists=request.sha256_hex in self.mount_files)

    async def SecretGetOrCreate(self: Plane, request: Any) -> p.SecretGetOrCreateResponse:
        name = request.deployment_name or self.new_id("anonymous")
        kind = request.object_creation_type
        if kind == p.OBJECT_CREATION_TYPE_UNSPECIFIED and name not in self.secrets:
            raise GRPCError(Status.NOT_FOUND, f"Secret '{name}' not found")
        if kind == p.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS and name in self.secrets:
            raise GRPCError(Status.ALREADY_EXISTS, f"Secret '{name}' already exists")
        self.secrets.setdefault(name, dict(request.env_dict))
        metadata = p.SecretMetadata(name=request.deployment_name)
        return p.SecretGetOrCreateResponse(secret_id=f"st-{name}", metadata=metadata)

    async def SecretUpdate(self: Plane, request: Any) -> Empty:
        secret = self.secrets[request.secret_id.removeprefix("st-")]
        for update in request.updates:
            secret[update.key] = update.value
        return Empty()

    async def SecretDelete(self: Plane, request: Any) -> Empty:
        self.secrets.pop(request.secret_id.removeprefix("st-"), None)
        return Empty()

    async def ImageGetOrCreate(self: Plane, request: Any) -> p.ImageGetOrCreateResponse:
        for image_id, image in self.images.items():
            if image == request.image:
                return p.ImageGetOrCreateResponse(image_id=image_id)
        image_id = self.new_id("im")
        self.images[image_id] = request.image
        return p.ImageGetOrCreateResponse(image_id=image_id)

    async def ImageJoinStreaming(
        self: Plane, request: Any
    ) -> AsyncIterator[p.ImageJoinStreamingResponse]:
        for line in self.build_failure or ["building\n"]:
            log = p.TaskLogs(data=line, file_descriptor=p.FILE_DESCRIPTOR_INFO)
            yield p.ImageJoinStreamingResponse(task_logs=[log])
        status = (
            p.GenericResult.GENERIC_STATUS_FAILURE
            if self.build_failure
            else p.GenericResult.GENERIC_STATUS_SUCCESS
        )
        metadata = p.ImageMetadata(
            image_builder_version=BUILDER, python_version_info="Python 3.12.11"
        )
        result = p.GenericResult(status=status)
        yield p.ImageJoinStreamingResponse(result=result, metadata=metadata)

    async def ImageBuildChainGet(self: Plane, request: Any) -> p.ImageBuildChainGetResponse:
        step = p.ImageBuildStep(builder_app_id="ap-builder", builder_task_id=request.image_id)
        step.started_at.GetCurrentTime()
        step.finished_at.GetCurrentTime()
        return p.ImageBuildChainGetResponse(build_steps=[step])

    def image_commands(self: Plane, image_id: str) -> list[str]:
        """Dockerfile commands of an image and all it is built on, in order."""
        image = self.images[image_id]
        commands: list[str] = []
        for base in image.base_images:
            commands += self.image_commands(base.image_id)
        return commands + [c for c in image.dockerfile_commands if c != "FROM base"]

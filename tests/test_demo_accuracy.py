"""The bundled model, through llama.cpp, describes scenes it never saw: whole sentences compared."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("xllamacpp")

TOOLS = Path(__file__).parents[1] / "tools" / "demo_model"


@pytest.fixture(scope="module")
def evaluate() -> ModuleType:
    sys.path.insert(0, str(TOOLS))
    try:
        spec = importlib.util.spec_from_file_location("demo_evaluate", TOOLS / "evaluate.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(TOOLS))
    return module


@pytest.fixture(scope="module")
def address(evaluate: ModuleType):
    with evaluate.server(evaluate.MODELS, threads=1) as url:
        yield url


@pytest.mark.parametrize(
    ("counts", "scenes", "floor"), [((1, 2), 100, 0.95), ((3,), 50, 0.90)], ids=["few", "three"]
)
def test_describes_held_out_scenes(
    evaluate: ModuleType, address: str, counts: tuple[int, ...], scenes: int, floor: float
) -> None:
    results = evaluate.measure(address, scenes, counts)
    whole = sum(of["sentence"] for of in results.values())
    assert whole / scenes >= floor


@pytest.mark.parametrize("size", [80, 96, 200, 448, 900])
def test_reads_pictures_of_any_size(evaluate: ModuleType, address: str, size: int) -> None:
    right = 0
    for index in range(20):
        scene = evaluate.make_scene(evaluate.HELD_OUT + 50_000_000 + index, 1)
        right += evaluate.ask(address, evaluate.render(scene, size)) == evaluate.describe(scene)
    assert right >= 17


@pytest.mark.parametrize("prompt", ["What is in this picture?", "zxq 17 ??", "Tell me a story."])
def test_answers_any_prompt_with_the_description(
    evaluate: ModuleType, address: str, prompt: str
) -> None:
    right = 0
    for index in range(20):
        scene = evaluate.make_scene(evaluate.HELD_OUT + 60_000_000 + index, 2)
        said = evaluate.ask(address, evaluate.render(scene, 320), prompt)
        right += said == evaluate.describe(scene)
    assert right >= 16

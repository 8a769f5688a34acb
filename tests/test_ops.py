"""torch.ops.lmgc as PyTorch sees it: schemas, fake tensors, torch.compile, threads."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable

import pytest
import torch
from helpers import FLOATS, METHODS, all_identical, gradient, identical, op_info, ops
from lm_priors import paying
from torch._subclasses.fake_tensor import FakeTensorMode

import lmgc_torch
from lmgc_torch import PastFrame, Prior, WarmStart
from lmgc_torch.api import NEEDS_PRIOR

OPS = ops()
TESTS = (
    "test_schema",
    "test_autograd_registration",
    "test_faketensor",
    "test_aot_dispatch_dynamic",
)

# What torch.library.opcheck cannot do: (operator, with a prior, test) to the reason.
KNOWN_FAILURES = {
    ("compress", True, "test_schema"): (
        "it compares arguments before and after, and takes a custom class for a sequence"
    ),
    ("compress.prior", True, "test_schema"): "as for compress",
    ("decompress", True, "test_schema"): "as for compress",
    **{
        (operator, True, "test_aot_dispatch_dynamic"): (
            "it compares arguments before and after, and custom classes know no =="
        )
        for operator in ("compress", "compress.prior")
        if torch.__version__ >= "2.7"
    },
    **{
        (operator, False, test): "as for compress: a custom class"
        for operator in ("compress.past", "compress.warm", "decompress.past")
        for test in ("test_schema", "test_aot_dispatch_dynamic")
    },
    **{
        (operator, with_prior, test): (
            "how many tensors come back stands in the bytes, which a trace does not have"
        )
        for operator, with_prior in (
            ("decompress", False),
            ("decompress", True),
            ("decompress.past", False),
            ("decompress.reference", False),
        )
        for test in ("test_faketensor", "test_aot_dispatch_dynamic")
    },
    ("version", False, "test_aot_dispatch_dynamic"): "there is no tensor to trace",
    **{
        ("residual_features", False, test): (
            "how many matrices a tensor has depends on its elements, which a trace does not have"
        )
        for test in ("test_faketensor", "test_aot_dispatch_dynamic")
    },
    **{
        (operator, False, test): "its text stands in the bytes, which a trace does not have"
        for operator in ("info", "contents")
        for test in ("test_faketensor", "test_aot_dispatch_dynamic")
    },
}


PriorOf = Callable[[str], Prior]


@pytest.fixture(scope="session")
def prior_of(prior: Prior, residual_prior: Prior) -> PriorOf:
    """A prior that suits a method; for those that need none, any."""
    return lambda method: residual_prior if method == "lm" else prior


every_method = pytest.mark.parametrize("method", [*METHODS, "lm"])


def arguments(operator: str, method: str, prior: Prior) -> tuple[tuple, dict]:
    handle = prior.handle if method in NEEDS_PRIOR else None
    tensors = [gradient(8, 40), torch.arange(5), torch.empty(0, 2), paying()]
    others = [tensor.clone() for tensor in tensors]
    kept = {"past": PastFrame().handle, "warm": WarmStart().handle, "reference": others}
    name, _, overload = operator.partition(".")
    if name == "compress":
        return (tensors, kept.get(overload, handle)), {"method": method}
    if overload == "reference":
        return (OPS.compress.reference(tensors, others, method=method), others), {}
    bfloat16 = (torch.bfloat16, [8, 40])
    alone = {
        "version": (),
        "context_features": (tensors[0], ["digit", "exponent_bits"]),
        "residual_features": (tensors[0], ["digit", "width"]),
        "round_mantissas": (tensors[0], 3, True),
        "round_to_powers": (tensors[0], torch.full((8 * 20,), -3, dtype=torch.int32), 2),
        "serialize": (tensors[0],),
        "tokenize": (tensors[0],),
        "deserialize": (OPS.serialize(tensors[0].bfloat16()), *bfloat16),
        "detokenize": (OPS.tokenize(tensors[0].bfloat16()), *bfloat16),
    }
    if name in alone:
        return alone[name], {}
    frame = OPS.compress(tensors, handle, method=method)
    return ((frame, kept.get(overload, handle)) if name == "decompress" else (frame,)), {}


CHECKED = [
    *(("compress", method) for method in ("planes", "lm", "lmgc")),
    *(("compress.prior", method) for method in ("lm", "lmgc")),
    *(("compress.past", "lowrank"), ("compress.warm", "lowrank")),
    ("compress.reference", "scale"),
    *(("decompress", method) for method in ("planes", "lm", "lmgc")),
    *(("decompress.past", "lowrank"), ("decompress.reference", "scale")),
    *(("contents", "lm"), ("info", "lm"), ("version", "raw")),
    *(("context_features", "raw"), ("residual_features", "raw")),
    *(("round_mantissas", "raw"), ("round_to_powers", "raw")),
    *(("serialize", "raw"), ("deserialize", "raw"), ("tokenize", "raw"), ("detokenize", "raw")),
]


def test_opcheck_knows_every_operator():
    there = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("lmgc::")}
    assert there == {f"lmgc::{operator}" for operator, _ in CHECKED}


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize(("operator", "method"), CHECKED)
def test_opcheck(
    operator: str, method: str, test: str, prior_of: PriorOf, request: pytest.FixtureRequest
):
    takes_prior = operator in ("compress", "compress.prior", "decompress")
    reason = KNOWN_FAILURES.get((operator, takes_prior and method in NEEDS_PRIOR, test))
    if reason is not None:
        request.applymarker(pytest.mark.xfail(reason=reason))
    args, kwargs = arguments(operator, method, prior_of(method))
    name, _, overload = operator.partition(".")
    checked = getattr(getattr(OPS, name), overload or "default")
    torch.library.opcheck(checked, args, kwargs, test_utils=test)


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64, torch.uint8, torch.complex64])
@pytest.mark.parametrize("method", ["auto", "raw", "planes", "scale", "lowrank"])
def test_opcheck_compress_of_every_kind(method: str, dtype: torch.dtype):
    for tensors in ([], [torch.ones(3, 5).to(dtype)], [torch.ones(4, 4).to(dtype).t()] * 2):
        torch.library.opcheck(OPS.compress.default, (tensors,), {"method": method})


def test_schemas_are_as_documented():
    assert str(OPS.compress.default._schema) == (
        "lmgc::compress(Tensor[] tensors, __torch__.torch.classes.lmgc.Prior? prior=None, *, "
        'str method="auto", str separator="none", int bytes_per_group=0, str byte_order="big", '
        'str window="disjoint", int lane_elements=0, bool bypass=True, int memory_limit=268435456, '
        'int effort=5, str metadata="") -> Tensor'
    )
    assert OPS.compress.overloads() == ["default", "prior", "warm", "past", "reference"]
    assert str(OPS.decompress.default._schema) == (
        "lmgc::decompress(Tensor data, __torch__.torch.classes.lmgc.Prior? prior=None, *, "
        "int? max_bytes=None) -> Tensor[]"
    )
    assert str(OPS.info.default._schema) == "lmgc::info(Tensor data) -> str"
    contents = "lmgc::contents(Tensor data) -> (str metadata, str[] methods)"
    assert str(OPS.contents.default._schema) == contents


@every_method
def test_operators_alone(method: str, prior_of: PriorOf):
    tensors, prior = [gradient(8, 40), torch.tensor(2, dtype=torch.int8)], prior_of(method)
    frame = OPS.compress(tensors, prior.handle, method=method, metadata="mine")
    assert all_identical(OPS.decompress(frame, prior.handle), tensors)
    about = op_info(frame)
    assert about["metadata"] == "mine"
    methods = [tensor["method"] for tensor in about["tensors"]]
    assert OPS.contents(frame) == ("mine", methods)
    assert [tensor["dtype"] for tensor in about["tensors"]] == ["float32", "int8"]
    assert [tensor["shape"] for tensor in about["tensors"]] == [[8, 40], []]


def test_operators_from_torchscript():
    @torch.jit.script
    def there_and_back(x: torch.Tensor) -> torch.Tensor:
        return torch.ops.lmgc.decompress(torch.ops.lmgc.compress([x], method="planes"))[0]

    assert identical(there_and_back(gradient(100)), gradient(100))


# ---- fake tensors --------------------------------------------------------------------------------


def test_fake_compress_has_a_size_of_its_own():
    with FakeTensorMode(shape_env=torch.fx.experimental.symbolic_shapes.ShapeEnv()):
        frame = OPS.compress([torch.empty(3, 4)])
        other = OPS.compress([torch.empty(3, 4)])
        assert frame.dtype == torch.uint8
        assert frame.dim() == 1
        assert str(frame.shape[0]) != str(other.shape[0])
        assert OPS.compress([]).device == torch.device("cpu")
        assert OPS.compress([torch.empty(3, device="cuda")]).device.type == "cuda"


# ---- torch.compile -------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    with warnings.catch_warnings():
        # Inductor's own imports; nothing of ours.
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
    torch._dynamo.reset()


def compiled(function, **options):
    return torch.compile(function, backend="aot_eager", **options)


@pytest.mark.parametrize("method", ["raw", "planes", "scale", "lowrank"])
def test_compile_compress_in_one_graph(method: str):
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.ops.lmgc.compress([x * 2, x + 1], method=method) + 0

    x = gradient(50, 20)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        frame = compiled(function, fullgraph=True)(x)
    assert torch.equal(frame, function(x))


@pytest.mark.parametrize("fullgraph", [True, False])
@pytest.mark.parametrize("method", ["lm", "lmgc"])
def test_compile_compress_with_a_prior(method: str, fullgraph: bool, prior_of: PriorOf):
    handle = prior_of(method).handle

    def in_one_graph(x: torch.Tensor) -> torch.Tensor:
        return torch.ops.lmgc.compress.prior([x * 2], handle, method=method)

    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.ops.lmgc.compress([x * 2], handle, method=method)

    x = paying() if method == "lm" else gradient(20, 20)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        frame = compiled(in_one_graph if fullgraph else function, fullgraph=fullgraph)(x)
    assert torch.equal(frame, function(x))


def test_export_with_a_prior(prior: Prior):
    class Compressor(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.prior = prior.handle

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.lmgc.compress.prior([x * 2], self.prior)

    x = gradient(20, 20)
    program = torch.export.export(Compressor(), (x,), strict=False)
    assert any(node.target is OPS.compress.prior for node in program.graph.nodes)


@pytest.mark.slow
@pytest.mark.skipif(
    torch.__version__ < "2.7",
    reason="an operator that was traced with a prior before has effects, which inductor refuses",
)
def test_compile_with_inductor_in_one_graph():
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.ops.lmgc.compress([x + 1], method="raw")

    x = gradient(50)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        frame = torch.compile(function, fullgraph=True)(x)
    assert torch.equal(frame, function(x))


def test_compile_breaks_the_graph_at_decompress():
    def function(x: torch.Tensor) -> torch.Tensor:
        frame = torch.ops.lmgc.compress([x, x + 1])
        one, two = torch.ops.lmgc.decompress(frame)
        return one + two

    x = gradient(50)
    with (
        torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True),
        pytest.raises(torch._dynamo.exc.Unsupported, match=r"lmgc\.decompress"),
    ):
        compiled(function, fullgraph=True)(x)
    torch._dynamo.reset()
    assert identical(compiled(function)(x), function(x))


def test_compile_breaks_the_graph_at_info():
    def function(x: torch.Tensor) -> torch.Tensor:
        return x + len(torch.ops.lmgc.info(torch.ops.lmgc.compress([x])))

    x = gradient(50)
    assert identical(compiled(function)(x), function(x))


@every_method
def test_compile_the_python_face(method: str, prior_of: PriorOf):
    prior = prior_of(method)

    def function(x: torch.Tensor) -> torch.Tensor:
        frame = lmgc_torch.compress({"x": x * 2}, method=method, prior=prior)
        back = lmgc_torch.decompress(frame, prior=prior)
        return back["x"] + 1

    x = gradient(40, 10)
    assert identical(compiled(function)(x), function(x))


# ---- threads -------------------------------------------------------------------------------------


def test_the_interpreter_runs_on_while_an_operator_works(prior: Prior):
    """A Python thread counts while the main one is inside of one operator."""
    tensor = gradient(600, 200)  # long enough for the thread to get its turn on a busy machine
    counted, inside = [0], threading.Event()
    done = threading.Event()

    def count() -> None:
        while not done.is_set():
            if inside.is_set():
                counted[0] += 1
            time.sleep(0.0005)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        inside.set()
        frame = OPS.compress([tensor], prior.handle, method="lmgc")
        while_compressing = counted[0]
        start = time.perf_counter()
        OPS.decompress(frame, prior.handle)
        seconds = time.perf_counter() - start
        inside.clear()
    finally:
        done.set()
        thread.join()
    assert while_compressing > 0
    assert counted[0] - while_compressing > 10 * seconds  # of about 2000 a second


@every_method
def test_several_threads_at_once(method: str, prior_of: PriorOf):
    prior = prior_of(method)
    tensors = [[gradient(30, 40, seed=seed), paying()] for seed in range(4)]
    expected = [OPS.compress(given, prior.handle, method=method) for given in tensors]
    wrong: list[object] = []

    def work(index: int) -> None:
        try:
            for _ in range(5):
                frame = OPS.compress(tensors[index], prior.handle, method=method)
                if not torch.equal(frame, expected[index]):
                    wrong.append("bytes")
                if not all_identical(OPS.decompress(frame, prior.handle), tensors[index]):
                    wrong.append("data")
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_no_gradient_flows_and_none_is_needed():
    x = gradient(20).requires_grad_()
    frame = OPS.compress([x * 2])
    assert not frame.requires_grad
    (back,) = OPS.decompress(frame)
    assert not back.requires_grad
    assert back.is_leaf

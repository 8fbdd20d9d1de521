"""The variables that a child process gets: those it has a use for, and no keys of others.

A program's environment holds whatever its user keeps there: tokens of clouds, of Modal, of
databases. A model's own Python runs in an engine, and a child's environment can be read by every
process of its user, so what is not named here stays behind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

SYSTEM = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_", "TZ"),
    *("TMPDIR", "TEMP", "TMP", "XDG_", "LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "PYTHON", "VIRTUAL_ENV", "CONDA_", "SYSTEMROOT"),
)
"""What programs of any kind read; a name that ends in ``_`` stands for all that begin so."""
COMPUTE = (
    *("CUDA_", "CUBLAS_", "CUDNN_", "NVIDIA_", "NCCL_", "HIP_", "ROCR_", "HSA_", "GPU_"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "GGML_", "VK_", "MTL_", "METAL_"),
)
"""What libraries that compute read."""
ENGINE = (
    *("TORCH", "PYTORCH_", "TRITON_", "VLLM_", "LMDEPLOY_", "TM_", "RAY_", "FLASHINFER_", "FLASH_"),
    *("GLOO_", "UCX_", "MASTER_", "NUMEXPR_", "XFORMERS_", "CC", "CXX"),
    *("HF_", "TRANSFORMERS_", "TOKENIZERS_"),
)
"""What LMDeploy, vLLM and the libraries below them read.

Neither proxies nor the Hub's token: its model lies in a folder, and pictures come in the request.
"""

_SECRET = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD)S?$", re.IGNORECASE)
_WHOLE = frozenset(("PYTHON", "TORCH"))
"""Stand for all that begin so, without a mark at their end."""


def only(environment: Mapping[str, str], *wanted: tuple[str, ...]) -> dict[str, str]:
    """The variables of ``environment`` that are among ``wanted``, but for those named as secrets.

    >>> only({"PATH": "/bin", "HF_HOME": "/hf", "HF_TOKEN": "", "AWS_REGION": ""}, SYSTEM, ENGINE)
    {'PATH': '/bin', 'HF_HOME': '/hf'}
    """
    names = {name for group in wanted for name in group}
    beginnings = tuple(name for name in names if name.endswith("_") or name in _WHOLE)
    return {
        name: value
        for name, value in environment.items()
        if (name in names or name.startswith(beginnings)) and not _SECRET.search(name)
    }

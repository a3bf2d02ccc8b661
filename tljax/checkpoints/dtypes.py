"""Which dtypes a weight may have, and what they are called in files. Every one is kept exactly as stored."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

SAFETENSORS: Mapping[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "F8_E4M3": jnp.dtype(jnp.float8_e4m3fn),
    "F8_E5M2": jnp.dtype(jnp.float8_e5m2),
    "F8_E8M0": jnp.dtype(jnp.float8_e8m0fnu),
    "F8_E4M3FNUZ": jnp.dtype(jnp.float8_e4m3fnuz),
    "F8_E5M2FNUZ": jnp.dtype(jnp.float8_e5m2fnuz),
    "U16": np.dtype(np.uint16),
    "I16": np.dtype(np.int16),
    "F16": np.dtype(np.float16),
    "BF16": jnp.dtype(jnp.bfloat16),
    "U32": np.dtype(np.uint32),
    "I32": np.dtype(np.int32),
    "F32": np.dtype(np.float32),
    "C64": np.dtype(np.complex64),
    "U64": np.dtype(np.uint64),
    "I64": np.dtype(np.int64),
    "F64": np.dtype(np.float64),
}
"""The dtype codes of safetensors. F4 and F6, which pack several numbers into a byte, have no NumPy dtype."""

BY_NAME: Mapping[str, np.dtype] = {
    dtype.name: dtype
    for dtype in (*SAFETENSORS.values(), np.dtype(np.complex128), jnp.dtype(jnp.int4), jnp.dtype(jnp.uint4))
}
"""Every dtype that a leaf may have, by name; int4 stands in memory, and in msgpack, as one byte a number."""


def is_weight(dtype: np.dtype) -> bool:
    """Whether a leaf may have this dtype: numbers and bools, no objects, strings, records or dates.

    >>> is_weight(np.dtype("float32")), is_weight(np.dtype(object)), is_weight(np.dtype("<U3"))
    (True, False, False)
    """
    return BY_NAME.get(dtype.name) == dtype.newbyteorder("=")


def is_extended(dtype: np.dtype) -> bool:
    """Whether NumPy knows `dtype` only through JAX's ml_dtypes: bfloat16, the float8s, int4.

    >>> is_extended(jnp.dtype(jnp.bfloat16)), is_extended(np.dtype(np.float16))
    (True, False)
    """
    return dtype.isbuiltin == 2


def native(array: np.ndarray) -> np.ndarray:
    """`array` in this machine's byte order; itself if it is already.

    >>> native(np.array([1.0], ">f4")).dtype
    dtype('float32')
    """
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))

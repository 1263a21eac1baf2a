"""TensorRT for engines that are ONNX files, on the CPU.

Only names that the real package has: a test holds them against TensorRT 10.16 and 11.4.
"""

from __future__ import annotations

import ctypes
import enum
import json
import os
import weakref
from collections import deque

import numpy as np
import onnxruntime
from cuda.bindings import runtime as cudart

from cmlr_edge.backends.onnx_structure import check_structure
from tensorrt.builder import *

__version__ = os.environ.get("FAKE_TENSORRT", "10.3.0")


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1

    INTERNAL_ERROR, ERROR = Severity.INTERNAL_ERROR, Severity.ERROR


class DataType(enum.Enum):
    UINT8 = "tensor(uint8)"
    FLOAT = "tensor(float)"


seen = deque(maxlen=64)  # what engines ran on, batch by batch

_first_logger = None  # as TensorRT: a reference that keeps nothing alive


class Runtime:
    def __init__(self, logger):
        global _first_logger  # noqa: PLW0603
        if _first_logger is None:
            _first_logger = weakref.ref(logger)
        self.logger = _GivenFirst()

    def deserialize_cuda_engine(self, content):
        try:
            check_structure(content, "plan")  # what ONNX Runtime would crash on or loop in
            return ICudaEngine(onnxruntime.InferenceSession(content))
        except Exception as error:  # noqa: BLE001
            self.logger.log(ILogger.ERROR, "cannot be deserialised: " + type(error).__name__)  # noqa: G003
            return None


class _GivenFirst:
    """The logger that was given first, whoever was given another; it must still be there."""

    def log(self, severity, message):
        logger = _first_logger()
        if logger is None:
            os._exit(139)
        logger.log(severity, message)


class ICudaEngine:
    def __init__(self, session):
        self.session, self.device = session, cudart.cudaGetDevice()[1]
        self._tensors = [*session.get_inputs(), *session.get_outputs()]
        self._named = {tensor.name: tensor for tensor in self._tensors}
        self.num_io_tensors = len(self._tensors)

    def get_tensor_name(self, index):
        return self._tensors[index].name

    def get_tensor_shape(self, name):
        return tuple(n if isinstance(n, int) else -1 for n in self._named[name].shape)

    def get_tensor_dtype(self, name):
        return DataType(self._named[name].type)

    def create_execution_context(self):
        if cudart.cudaGetDevice()[1] != self.device:
            _GivenFirst().log(ILogger.ERROR, "the engine is on another GPU")
            return None
        return IExecutionContext(self)

    def create_engine_inspector(self):
        return EngineInspector()


class LayerInformationFormat(enum.Enum):
    JSON = 1


class EngineInspector:
    def get_engine_information(self, kind):
        assert kind is LayerInformationFormat.JSON
        outputs = [{"Outputs": [{"Format/Datatype": kind}]} for kind in ("Half", "Half", "Float")]
        return json.dumps({"Layers": [*outputs, "no details of this one"]})


class IExecutionContext:
    def __init__(self, engine):
        self._engine, self._addresses, self._shape = engine, {}, ()
        self._largest = int(os.environ.get("FAKE_LARGEST", "1000"))

    def set_tensor_address(self, name, address):
        self._addresses[name] = address
        return True

    def set_input_shape(self, name, shape):
        assert name == "frames"
        self._shape = shape
        fixed = self._engine.get_tensor_shape(name)[0]
        return shape[0] <= self._largest and fixed in {-1, shape[0]}

    def execute_async_v3(self, stream):
        shape = self._shape
        if cudart.cudaGetDevice()[1] != self._engine.device:
            _GivenFirst().log(ILogger.ERROR, "the stream is of another GPU")
            return False
        if why := os.environ.get("FAKE_ENQUEUE"):
            _GivenFirst().log(ILogger.ERROR, why)
            return False

        def run():
            frames = _device_array(self._addresses["frames"], shape, np.uint8).copy()
            seen.append(frames)
            names = [output.name for output in self._engine.session.get_outputs()]
            try:
                found = self._engine.session.run(names, {"frames": frames})
            except Exception as error:
                raise cudart.LaunchFailure from error
            for name, values in zip(names, found, strict=True):
                _device_array(self._addresses[name], values.shape, np.float32)[:] = values

        cudart.put(stream, run)
        return True


def _device_array(address, shape, dtype):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype).reshape(shape)

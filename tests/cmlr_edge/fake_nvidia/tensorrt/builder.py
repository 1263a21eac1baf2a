"""TensorRT's builder, whose engine is the ONNX file it was given."""

from __future__ import annotations

import enum
import os
import struct

import onnxruntime

BATCH_LIMIT = 64


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class LayerType(enum.Enum):
    PLUGIN_V3 = 1
    CONVOLUTION = 2


class ProfilingVerbosity(enum.Enum):
    DETAILED = 1


class MemoryPoolType(enum.Enum):
    WORKSPACE = 1


class BuilderFlag(enum.Enum):
    GPU_FALLBACK = 1


class DeviceType(enum.Enum):
    DLA = 1


class ILayer:
    type, num_outputs = LayerType.CONVOLUTION, 0


class INetworkDefinition:
    def __init__(self):
        self.content, self.num_layers = b"", 3

    def get_layer(self, index):
        del index
        return ILayer()

    def get_input(self, index):
        assert index == 0
        return onnxruntime.InferenceSession(self.content).get_inputs()[0]


class OnnxParser:
    def __init__(self, network, logger):
        self.network, self.logger, self.num_errors = network, logger, 1

    def parse(self, content):
        self.network.content = content
        return content.startswith(b"\x08")

    def get_error(self, index):
        return f"error {index}: no model"


class IOptimizationProfile:
    def set_shape(self, name, smallest, tuned, largest):
        assert name == "frames"
        self.shapes = (smallest, tuned, largest)


class ITimingCache:
    def __init__(self, content):
        self.content = content

    def serialize(self):
        return self.content + b"timed"


class IBuilderConfig:
    def __init__(self):
        self.profiling_verbosity = self._cache = None
        self.limits, self.profiles, self.flags = {}, [], set()

    def add_optimization_profile(self, profile):
        self.profiles.append(profile)
        return 0 if profile.shapes[2][0] <= BATCH_LIMIT else -1

    def set_memory_pool_limit(self, pool, size):
        self.limits[pool] = size

    def create_timing_cache(self, content):
        return ITimingCache(content)

    def set_timing_cache(self, cache, ignore_mismatch):
        self._cache = cache
        return not ignore_mismatch and not cache.content.startswith(b"other")

    def get_timing_cache(self):
        return self._cache


class Builder:
    num_DLA_cores = 0

    def __init__(self, logger):
        self.logger = logger

    def create_network(self, flags):
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return INetworkDefinition()

    def create_builder_config(self):
        return IBuilderConfig()

    def create_optimization_profile(self):
        return IOptimizationProfile()

    def build_serialized_network(self, network, config):
        assert config.profiling_verbosity is ProfilingVerbosity.DETAILED
        if os.environ.get("FAKE_BUILD") == "wrong":
            return network.content.replace(b"Sigmoid", b"Softmax")
        # The first channel of the tests' mean_color_model, a little off.
        one, off = (struct.pack("<f", x / 255) for x in (1, float(os.environ.get("FAKE_RED", "1"))))
        return network.content.replace(one, off, 1)

"""Models that were trained elsewhere, made into engines; the only room that imports `onnx`."""

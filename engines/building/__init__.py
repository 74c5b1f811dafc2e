"""ONNX graphs → TensorRT engines."""

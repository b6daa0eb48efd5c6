"""TensorFlow, ONNX Runtime and OpenVINO around the shipped models: speed, start and size.

    python benchmarks/runtimes.py speed --rounds 7
    python benchmarks/runtimes.py start --runtime onnxruntime
    python benchmarks/runtimes.py size

`speed` calls each runtime in turn with the largest tile of each model, on one core, and prints the
median processor time, which depends little on what else the machine does, and how far the answers

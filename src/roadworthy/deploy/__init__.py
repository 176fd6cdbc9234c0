"""From a quantized graph to a verified ONNX file, and the runtimes that load it.

Nothing here needs another stage: a module whose graph holds the two operators of `core.grid` comes
in, a file comes out. `docs/deploy.md` tells what the file looks like and why.
"""

"""A script: the real llama.cpp server (PyPI xllamacpp) in a process of its own, until its stdin closes."""

import argparse
import os
import sys

import xllamacpp


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--context", type=int, default=2048, help="tokens of all slots together")
    parser.add_argument("--api-key", default="")
    options = parser.parse_args()
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {"tiny"}
    params.n_ctx = options.context
    params.n_parallel = options.slots
    params.n_batch = params.n_ubatch = 256
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.hostnames = ["127.0.0.1"]
    params.port = options.port
    params.endpoint_metrics = params.endpoint_slots = True
    params.use_jinja = True
    params.embedding = True  # besides completions
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN  # which OpenAI's route asks for
    params.verbosity = 0
    if options.api_key:
        params.api_keys = [options.api_key]
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()  # the test process's end of the pipe closes however it ends
    os._exit(0)  # the engine's threads need no goodbye


if __name__ == "__main__":
    main()

"""`minillama simple`: the smallest whole program, to be read (llama.cpp: llama-simple).

It reads a prompt, then takes the likeliest token again and again.
"""

import argparse
import time

from minillama.cli.arguments import llama_options
from minillama.cli.arguments.model_from_args import find_model
from minillama.cli.output.terminal import end_line, note, write_text


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("simple", help="the smallest program: greedy continuation", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="the prompt (default: Hello my name is)")
    llama_options.add_options(parser, "model", llama_options.MODEL)
    parser.add_argument("-n", dest="predict", type=int, default=32, metavar="N", help="tokens to write (default: 32)")
    parser.add_argument(
        "-ngl", type=llama_options.layers, default=None, metavar="N", help="layers on the GPU (default: auto)"
    )


def run(args: argparse.Namespace) -> int:
    import minillama as ml

    # 1. A GGUF file becomes a model: parameters on the device, a tokenizer, a context.
    llm = ml.load(find_model(args), n_gpu_layers=args.ngl, progress=False)

    # 2. The prompt becomes token ids; each is the number of a piece of text.
    prompt = " ".join(args.words) or "Hello my name is"
    ids = llm.tokenizer.encode(prompt)
    for token in ids:
        write_text(llm.tokenizer.piece(token, special=True).decode("utf-8", errors="replace"))

    # 3. Each step gives one number a token of the vocabulary; temperature 0 takes the largest, and it goes back in.
    started = time.perf_counter()
    stream = llm.stream(prompt, n=args.predict, temp=0.0)
    for piece in stream:
        write_text(piece.text)
    seconds = time.perf_counter() - started

    # 4. How fast was it? The first run of a program on a machine compiles it, which is told apart.
    completion = stream.completion
    end_line(completion.text)
    count, compiling = len(completion.tokens), completion.timings.compile
    note(f"\nmain: decoded {count} tokens in {seconds:.2f} s, speed: {count / seconds:.2f} t/s")
    note(f"main: {compiling:.2f} s of that was compiling; without it {count / max(seconds - compiling, 1e-9):.2f} t/s")
    return 0

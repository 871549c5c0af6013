"""`minillama simple`: the smallest whole program, to be read (llama.cpp: llama-simple).

It runs a prompt, then takes the likeliest token again and again.
"""

import argparse
import time

from minillama.cli.arguments import llama_options, values
from minillama.cli.arguments.model_from_args import find_model
from minillama.cli.arguments.option import add_options
from minillama.cli.output.terminal import end_line, note, notes, write_text


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("simple", help="the smallest program: greedy continuation", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="the prompt (default: Hello my name is)")
    add_options(parser, "model", llama_options.MODEL)
    parser.add_argument("-n", dest="predict", type=values.integer, default=32, metavar="N", help="tokens (default: 32)")
    parser.add_argument("-ngl", type=llama_options.layers, metavar="N", help="layers on the GPU (default: auto)")


def run(args: argparse.Namespace) -> int:
    import numpy as np

    import minillama as ml
    from minillama.engine.backends.finite import check_finite
    from minillama.engine.compile.compile_timer import compile_seconds

    # 1. A GGUF file becomes a model: parameters on the device, a tokenizer, a context.
    llm = ml.load(find_model(args), n_gpu_layers=args.ngl, progress=False)

    # 2. The prompt becomes token ids; each is the number of a piece of text.
    ids = llm.tokenizer.encode(" ".join(args.words) or "Hello my name is")
    for token in ids:
        write_text(llm.tokenizer.piece(token, special=True).decode("utf-8", errors="replace"))

    # 3. One pass over the prompt fills the key/value cache, and gives a number (logit) for each token that may follow.
    started, compile_started = time.perf_counter(), compile_seconds()
    session = llm.session()
    *_, logits = session.prefill(ids)

    # 4. Take the token with the largest logit, write its text, and run it to get the next logits.
    decoder, count, text = llm.tokenizer.decoder(), 0, ""
    while count != args.predict and session.room > 0:
        check_finite(np.asarray(logits))  # argmax would take a NaN for the largest
        token, count = int(np.argmax(logits)), count + 1
        if token in llm.tokenizer.eog:
            break
        write_text(text := decoder.push(token))
        if count != args.predict:
            logits = session.decode(token)
    write_text(decoder.flush())
    end_line(text)

    # 5. How fast was it? The first run of a program on a machine compiles it, which is reported separately.
    seconds, compiling = time.perf_counter() - started, compile_seconds() - compile_started
    notes(f"\nmain: decoded {count} tokens in {seconds:.2f} s, speed: {count / seconds:.2f} t/s")
    note(f"main: {compiling:.2f} s of that was compiling; without it {count / max(seconds - compiling, 1e-9):.2f} t/s")
    return 0

"""Print an answer while it is generated, until its end or Ctrl-C."""

from typing import TYPE_CHECKING

from minillama.cli.output.answer_writer import AnswerWriter
from minillama.cli.output.terminal import INTERRUPT_SECONDS, Interrupt, WaitEndedError
from minillama.errors import MinillamaError

if TYPE_CHECKING:
    from minillama.engine.result import Completion
    from minillama.engine.stream import Stream
    from minillama.tokenizer.streaming_decoder import StreamDecoder


def show_stream(
    stream: "Stream", writer: AnswerWriter | None = None, decoder: "StreamDecoder | None" = None
) -> "Completion":
    """Print pieces of an answer until the end or Ctrl-C, and return the completion.

    The last line is ended. After Ctrl-C and after an error, all text so far is printed.

    decoder: prints all tokens with it, instead of the text without control tokens and stop strings.
    """
    writer = writer or AnswerWriter(coloured=False)
    text = thoughts = 0  # characters written

    def rest(*, empty: bool = True) -> None:
        if decoder is None:
            writer.push(stream.text[text:], stream.reasoning_content[thoughts:])
        else:
            writer.push(decoder.flush())
        writer.end(empty=empty)

    try:
        with Interrupt(INTERRUPT_SECONDS) as interrupt:
            for piece in stream:
                text += len(piece.text)
                thoughts += len(piece.reasoning_content)
                if decoder is None:
                    writer.push(piece.text, piece.reasoning_content)
                else:
                    writer.push(decoder.push(piece.token))
                if interrupt.requested:
                    break
    except WaitEndedError:
        pass
    except MinillamaError:
        rest(empty=False)
        raise
    stream.close()
    rest()
    return stream.completion

"""Small task files in llama-perplexity's formats."""

import struct

HELLASWAG = """\
The ant sat on the north end
2
of a dog
and ran to the others, one after another, until there was none
and the sand
on
She sees
0
a hen
it
her there and then
the end
"""
WINOGRANDE = """\
0,The little dog ran after the big cat because the _ was very fast and wanted to play,dog,cat,2
1,"Lily gave the ball to Tom, so _ was happy and said thank you",Lily,Tom,2
2,Mom put the cake on the table and the _ ate all of it in the morning,boy,table,1
3,Tom liked the red _.,car,sky,1
"""


def multiple_choice_file(tasks: list[tuple[str, list[str], int]]) -> bytes:
    """llama.cpp's binary format."""

    def text(value: str) -> bytes:
        return struct.pack("<I", len(value.encode())) + value.encode()

    def body(question: str, answers: list[str], right: int) -> bytes:
        labels = [int(number == right) for number in range(len(answers))]
        found = b"".join(map(text, answers)) + struct.pack(f"<{len(answers)}i", *labels)
        return text(question) + struct.pack("<I", len(answers)) + found + struct.pack("<I", 0)

    bodies, places = [body(*task) for task in tasks], [4 + 4 * len(tasks)]
    for one in bodies:
        places.append(places[-1] + len(one))
    return struct.pack(f"<{1 + len(tasks)}I", len(tasks), *places[:-1]) + b"".join(bodies)


MULTIPLE_CHOICE = multiple_choice_file(
    [
        ("What is it?", ["an ant", "the other one on the sand", "é"], 1),
        ("Who ran", ["there", "to the end of it all, and then back again without any rest"], 0),
        ("The hen", ["in", "on", "at", "is here", "is there"], 4),
    ]
)

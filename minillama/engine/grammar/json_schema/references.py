"""References inside a JSON schema: `#/$defs/a`."""

from collections.abc import Mapping

from minillama.engine.grammar.json_schema.keywords import Schema, check_keywords, failure
from minillama.errors import quoted

LONGEST_CHAIN = 40  # references that lead to each other


def part_of(root: object, reference: str, path: str) -> object:
    """The part of a schema that a reference names.

    Raises OptionError if it is not there.
    """
    part = root
    for step in reference.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(part, Mapping) and step in part:
            part = part[step]
        elif isinstance(part, list) and step.isdecimal() and len(step) < 9 and int(step) < len(part):
            part = part[int(step)]
        else:
            raise failure(path, f"$ref is {quoted(reference)}, and {quoted(step)} is not there")
    return part


def resolved(root: object, schema: object, path: str) -> Schema:
    """The schema that references lead to; raises OptionError for a circle."""
    for _ in range(LONGEST_CHAIN):
        if not isinstance(schema, Mapping):
            raise failure(path, f"expected an object with keywords, not {quoted(schema)}")
        if "$ref" not in schema:
            return schema
        check_keywords(schema, {"$ref"}, path)
        schema = part_of(root, str(schema["$ref"]), path)
    raise failure(path, "$ref leads to itself")

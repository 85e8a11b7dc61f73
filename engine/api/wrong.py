"""What is wrong with an input, in a code for programs and a sentence for people."""

from __future__ import annotations

import re
from ast import literal_eval

from engine.api.route import ApiError

_AT = re.compile(r"(?s)^(.*?)(?: - at `\$\.?([^`]*)`)?$")
# The pattern is shown as Python writes a text, with every backslash twice.
_PATTERN = re.compile(r"matching regex ('.*'|\".*\")$")
_FIELD = re.compile(r"field `([^`]*)`")


def wrong_input(error: Exception) -> ApiError:
    """An error of msgspec's (or of UTF-8) as status 400."""
    match = _AT.match(str(error))
    text, where = (match[1], match[2] or "") if match else (str(error), "")
    field = _FIELD.search(text)
    if field:
        name = f"{where}.{field[1]}" if where else field[1]
        if "unknown" in text:
            return _error("unknown_field", f"{name} is no field of this request", name)
        return _error("missing_field", f"{name} is missing", name)
    if "got `float`" in text and "str" in text:
        return _error("float_not_allowed", f"{where} is a float: write it in quotes, as "
                      "\"60010.5\", so that it stays exact", where)
    pattern = _PATTERN.search(text)
    if pattern:
        return _error("bad_value", f"{where or 'this'} is not written as it should be: expected "
                      f"a text like {literal_eval(pattern[1])}", where)
    if where or text.startswith(("Expected", "Invalid")):
        return _error("bad_value", f"{where or 'the body'}: {text[0].lower()}{text[1:]}", where)
    return ApiError(400, "bad_json", f"the body is not JSON: {text}")


def _error(code: str, message: str, field: str) -> ApiError:
    return ApiError(400, code, message, {"field": field} if field else {})

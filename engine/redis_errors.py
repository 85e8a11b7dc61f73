"""What Redis says when it refuses, in words for an operator."""

from __future__ import annotations

# What the first word of a server's error means to an operator. Servers before 7 put the word
# somewhere into the text when a script met it.
_WORDS = {
    "OOM": "the server's memory is full (maxmemory)",
    "READONLY": "the server is a read-only replica",
    "NOAUTH": "the server wants a password",
    "WRONGPASS": "wrong user or password",
    "NOPERM": "the user may not do this",
    "LOADING": "the server is still loading its data",
    "CLUSTERDOWN": "the cluster is down",
    "MASTERDOWN": "the server has lost its master",
    "MISCONF": "the server can't save to its disk and refuses writes",
    "NOREPLICAS": "the server has too few replicas and refuses writes",
    "BUSY": "a script keeps the server busy",
    "UNBLOCKED": "the server changed its role",
    "TRYAGAIN": "the cluster is moving these keys",
}


def word_of(error: BaseException) -> str:
    """The word by which a server names its error, like "OOM"; "" when it is none that we know."""
    text = str(error)
    name = type(error).__name__
    known = {"OutOfMemoryError": "OOM", "ReadOnlyError": "READONLY", "BusyLoadingError": "LOADING",
             "AuthenticationError": "WRONGPASS", "NoPermissionError": "NOPERM",
             "ClusterDownError": "CLUSTERDOWN", "TryAgainError": "TRYAGAIN",
             "MasterDownError": "MASTERDOWN"}.get(name, "")
    if known == "WRONGPASS" and "required" in text:
        return "NOAUTH"
    return known or next((word for word in (*_WORDS, "WRONGTYPE", "NOSCRIPT")
                          if f"-{word} " in text or text.startswith(f"{word} ")
                          or f" {word} " in text), "")


def words_of(error: BaseException) -> str:
    """The same in our own words alone; "" for what is not known."""
    return _WORDS.get(word_of(error), "")


def reason_of(error: BaseException) -> str:
    """What went wrong with Redis, in one line without secrets."""
    word = word_of(error)
    if word == "NOPERM":
        return f"{_WORDS[word]}: {_one_line(error)}"
    if word in _WORDS:
        return _WORDS[word]
    if isinstance(error, TimeoutError) or type(error).__name__ == "TimeoutError":
        return "no answer in time"
    return _one_line(error) or type(error).__name__


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]

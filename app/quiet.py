"""The libraries' progress bars and advice to programmers, off: they are not for the operator."""


def silence_libraries() -> None:
    """Let diffusers and transformers tell of errors alone; imports both."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity_error()

"""The libraries' progress bars and advice to programmers, off: they are not for the operator."""


def silence_libraries() -> None:
    """Let diffusers, and transformers where that finds it, tell of errors alone; imports both."""
    from diffusers.utils import is_transformers_available, logging

    libraries = [logging]
    if is_transformers_available():
        from transformers.utils import logging as transformers_logging

        libraries.append(transformers_logging)
    for library in libraries:
        library.disable_progress_bar()
        library.set_verbosity_error()

"""`python -m app` is `phosphene`, as `accelerate launch -m app` needs it."""

from app.cli import main

main()

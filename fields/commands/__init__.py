"""The subcommands of `fieldfit`, one module each, with a function `run(argv) -> exit code`; `fields.cli` imports only
the one that is asked for."""

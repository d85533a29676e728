"""``python -m gradtap`` is the ``gradtap`` command."""

from gradtap.cli.main import main

if __name__ == "__main__":
    main()

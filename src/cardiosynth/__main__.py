"""``python -m cardiosynth`` is the command line."""

from cardiosynth.cli import main

if __name__ == "__main__":
    main()

"""``python -m organza`` is the command ``organza`` (for torchrun)."""

from organza.cli import main

if __name__ == "__main__":
    main()

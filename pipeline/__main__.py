"""`python -m pipeline`: the command line, where the console script is not on the PATH."""

from pipeline.cli import main

if __name__ == "__main__":
    main(prog_name="affectpipe")

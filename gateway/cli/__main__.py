"""`python -m gateway.cli`: the `gateway` command where it is not installed."""

from gateway.cli.root import main

if __name__ == "__main__":
    main()

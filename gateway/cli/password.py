"""`gateway password`: a password's hash, for `users` of the listener."""

import sys
from typing import Annotated

import typer

from gateway.errors import GatewayError


def password(
    username: Annotated[str, typer.Argument(help="Whose password it is.")],
) -> None:
    """Ask for a password and print the entry for `mqtt.listen.users`. Piped in, it is read from stdin's first line."""
    try:
        from gateway.mqtt.passwords import hash_password

        hash_password("")
    except ImportError as error:
        raise GatewayError("needs the extra `passwords`: pip install 'edge-event-gateway[passwords]'") from error
    if sys.stdin.isatty():
        plain = typer.prompt(f"Password of {username}", hide_input=True, confirmation_prompt=True, err=True)
    else:
        plain = sys.stdin.readline().rstrip("\r\n")
    if not plain:
        raise typer.BadParameter("the password is empty")
    import msgspec

    shown = msgspec.json.encode(username).decode()  # JSON's form of a text is YAML's, too
    typer.echo(f'- username: {shown}\n  password_hash: "{hash_password(plain)}"')

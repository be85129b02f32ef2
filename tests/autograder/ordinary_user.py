"""Runs a command as a user without privileges, where the tests are run by root."""

import os
import sys

# what lies in root's home, such as the interpreter, is shown to the user in a home of its own
GIVE_UP = r"""
set -e
seen=/mnt
mount --bind "$1" "$seen"
home=/$(echo "$1" | cut -d/ -f2)
if [ "$home" = /root ]; then
    mount -t tmpfs -o mode=755 none /root
    mkdir -p "$1"
    mount --bind "$seen" "$1"
fi
user=$2
shift 2
exec setpriv --reuid "$user" --regid "$user" --clear-groups --inh-caps=-all "$@"
"""


def as_ordinary_user(command: list[str], user: int = 12345) -> list[str]:
    """Return the command that runs `command` as `user`; unchanged for one who is not root."""
    if os.getuid() != 0:
        return command
    give_up = ["unshare", "--mount", "sh", "-c", GIVE_UP, "sh", sys.base_prefix, str(user)]
    return [*give_up, "env", "HOME=/tmp", "PYTHONDONTWRITEBYTECODE=1", *command]

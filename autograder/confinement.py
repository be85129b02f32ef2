"""Where the warm process may live and what a submission may not call.

bubblewrap builds the file system in which the warm process and all its children live;
libseccomp compiles the system-call filter that each child loads before the student's code runs.
"""

from __future__ import annotations

import errno
import functools
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path

RUNNER_FOLDER = "/runner"
CHILD_FOLDER = Path(__file__).parent / "child"
SYSTEM_FOLDERS = ("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin")
SYSTEM_FILES = (
    "/etc/alternatives",
    "/etc/fonts",
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/passwd",
)
# whom submissions become, one for each worker
FIRST_USER, USERS = 200_000, 2**16
OWN_STATUS = Path("/proc/self")
WITHHELD_PACKAGES = ("lossref", "autograder")
# the layers that can be left out alone, to show what each one stops; see child/warm.py too
LAYERS = (
    "files",
    "folders",
    "processes",
    "network",
    "messages",
    "user",
    "capabilities",
    "calls",
    "limits",
    "memory",
)
OUTER_NAMESPACES = {
    "messages": "--unshare-ipc",
    "processes": "--unshare-pid",
    "network": "--unshare-net",
}

FORBIDDEN_CALLS = (
    "acct",
    "add_key",
    "bpf",
    "chroot",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "init_module",
    "inotify_init",
    "inotify_init1",
    "io_setup",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "ioprio_set",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "landlock_create_ruleset",
    "memfd_create",
    "memfd_secret",
    "mknod",
    "mknodat",
    "mount",
    "mount_setattr",
    "modify_ldt",
    "move_mount",
    "move_pages",
    "msgget",
    "name_to_handle_at",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pidfd_getfd",
    "pivot_root",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "quotactl",
    "reboot",
    "request_key",
    "sched_setaffinity",
    "sched_setattr",
    "sched_setparam",
    "sched_setscheduler",
    "seccomp",
    "semget",
    "setdomainname",
    "sethostname",
    "setns",
    "setpriority",
    "shmget",
    "swapoff",
    "swapon",
    "syslog",
    "umount2",
    "unshare",
    "userfaultfd",
    "vhangup",
    "vmsplice",
)
SETXATTRAT = 463  # which libseccomp may be too old to know by name
ATTRIBUTE_CALLS = ("setxattr", "lsetxattr", "fsetxattr", SETXATTRAT)
NEW_NAMESPACE_FLAGS = 0x7E020080
AF_UNIX = 1
MAP_SHARED = 0x01
MAP_ANONYMOUS = 0x20
# the places of the arguments that decide, and the values that are refused; of each, 32 bits count
FORBIDDEN_ARGUMENTS: tuple[tuple[str, dict[int, int]], ...] = (
    ("ioctl", {1: 0x5412}),  # TIOCSTI types into a terminal
    # PR_SET_SECCOMP has the kernel compile a program, of which it holds few; PR_SCHED_CORE keeps
    # others from the same core; PR_FUTEX_HASH takes a gigabyte of the kernel's memory
    *(("prctl", {0: option}) for option in (22, 62, 78)),
    *(
        ("setsockopt", {1: 1, 2: option})
        # SO_ATTACH_FILTER, SO_ATTACH_BPF and their kind for several sockets do the same
        for option in (26, 50, 51, 52)
    ),
    *(
        ("fcntl", {1: command})
        # locks that outlive their descriptor and so have no limit: F_OFD_GETLK, _SETLK, _SETLKW;
        # F_SETLEASE and F_NOTIFY reach who opens a file, F_SETPIPE_SZ takes what the user may have
        for command in (36, 37, 38, 1024, 1026, 1031)
    ),
)


class ConfinementUnavailableError(RuntimeError):
    """A student's process cannot be confined on this machine."""


def require_confinement() -> None:
    """Raise `ConfinementUnavailableError`, saying what to do, unless processes can be confined."""
    reason = missing_confinement()
    if reason:
        raise ConfinementUnavailableError(
            f"submissions cannot be confined here: {reason}. Mend that, or grade inside a "
            "container or virtual machine that holds nothing secret, or, for notebooks that you "
            "trust, use --unconfined"
        )


def require_out_of_sight(course: Path) -> None:
    """Raise `ConfinementUnavailableError` if a course lies where submissions can read."""
    for folder in (*SYSTEM_FOLDERS, *interpreter_folders()):
        if course.resolve().is_relative_to(folder):
            raise ConfinementUnavailableError(
                f"a submission can read all that is in {folder}, the course in {course} too: move "
                "the course, or install Python and the autograder elsewhere"
            )


@functools.cache
def missing_confinement() -> str:
    """Return what is missing for confinement, or an empty string."""
    if not sys.platform.startswith("linux"):
        return f"it needs Linux, and this is {sys.platform}"
    # whoever is root outside too can change the kernel's settings, and is bound by few limits
    if os.getuid() == 0 and not users_of_their_own() and os.stat("/proc/sys").st_uid == 0:  # noqa: PTH116
        return "it runs as root, in a user namespace in which there is no other user to become"
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed (Debian: apt-get install bubblewrap)"
    try:
        forbidden_calls_program()
    except (ImportError, OSError, RuntimeError) as error:
        return f"libseccomp is not to be had ({error}) (Debian: apt-get install libseccomp2)"
    trial = subprocess.run(
        [*sandbox_command(()), interpreter(), "-I", "-c", "pass"],
        capture_output=True,
        text=True,
        check=False,
    )
    if trial.returncode != 0:
        return f"bubblewrap cannot make a sandbox ({trial.stderr.strip()})"
    return ""


def sandbox_command(secret: Iterable[Path], without: Collection[str] = ()) -> list[str]:
    """Return the bubblewrap command that shows the interpreter and its libraries, read-only.

    `secret` folders are covered even where they lie inside one that is shown; `without` names the
    layers of confinement to leave out.
    """
    command = ["bwrap", "--die-with-parent", "--new-session", "--clearenv"]
    command += ["--unshare-uts", "--unshare-cgroup-try"]
    command += [option for layer, option in OUTER_NAMESPACES.items() if layer not in without]
    if os.getuid() != 0:
        command += ["--unshare-user"]
    if "files" in without:
        return [*command, "--ro-bind", "/", "/", *_own_folders()]
    command += _own_folders()
    shown = [*SYSTEM_FOLDERS, *SYSTEM_FILES, *interpreter_folders()]
    for parent in _ancestors((*SYSTEM_FILES, *interpreter_folders())):
        command += ["--perms", "0755", "--dir", parent]
    for path in shown:
        if Path(path).is_symlink() and path in SYSTEM_FOLDERS:
            command += ["--symlink", str(Path(path).readlink()), path]
        else:
            command += ["--ro-bind-try", path, path]
    covered = [folder for folder in (*secret, *_installed_grader()) if _is_shown(folder, shown)]
    for folder in covered:
        command += ["--tmpfs", str(folder)]
    command += ["--ro-bind", str(CHILD_FOLDER), RUNNER_FOLDER, "--chdir", "/"]
    return [*command, "--remount-ro", "/dev", "--remount-ro", "/"]


@functools.cache
def users_of_their_own() -> bool:
    """Tell whether submissions can become users of their own, as those that root starts can.

    Those of a user namespace's root can only where the namespace has so many users.
    """
    if os.getuid() != 0:
        return False
    try:
        may_set_groups = (OWN_STATUS / "setgroups").read_text() == "allow\n"
        return may_set_groups and all(map(_holds_the_users, ("uid_map", "gid_map")))
    except FileNotFoundError:
        # a kernel without user namespaces has no such files, and its root can become anybody
        return True


def _holds_the_users(name: str) -> bool:
    for line in (OWN_STATUS / name).read_text().splitlines():
        inside, _, count = map(int, line.split())
        if inside <= FIRST_USER and inside + count >= FIRST_USER + USERS:
            return True
    return False


def temporary_folder() -> str:
    """Return the folder for temporary files: one that holds no interpreter to be covered."""
    inside = any(Path(folder).is_relative_to("/tmp") for folder in interpreter_folders())
    return "/var/tmp" if inside else "/tmp"


def _own_folders() -> list[str]:
    """Return the options for the folders that the sandbox does not share with the machine."""
    options = ["--proc", "/proc", "--dev", "/dev"]
    for folder in (temporary_folder(), "/dev/shm"):
        options += ["--perms", "1777", "--tmpfs", folder]
    # mapped as shared memory, the zero device gives memory that no limit counts
    return [*options, "--dev-bind", "/dev/null", "/dev/zero"]


def runner_folder(without: Collection[str] = ()) -> str:
    """Return where the sandbox shows what the warm process runs."""
    return str(CHILD_FOLDER) if "files" in without else RUNNER_FOLDER


def interpreter() -> str:
    """Return the interpreter's path, by folders that are shown; it may itself be a link."""
    path = Path(sys.executable)
    return str(path.parent.resolve() / path.name)


def interpreter_folders() -> list[str]:
    """Return the folders that hold the interpreter and the packages it imports."""
    named = {sys.prefix, sys.base_prefix, sysconfig.get_path("purelib")}
    folders = {folder for folder in named if ".." not in Path(folder).parts}
    folders |= {str(Path(folder).resolve()) for folder in named}
    folders.add(str(Path(sys.executable).resolve().parent.parent))
    return sorted(folder for folder in folders if folder not in ("/", "/usr"))


def _ancestors(folders: Iterable[str]) -> list[str]:
    """Return the folders above, outermost first; they are empty but for what is shown in them."""
    above = {parent for folder in folders for parent in Path(folder).parents}
    shown = {Path(path) for path in SYSTEM_FOLDERS}
    return sorted(
        str(folder)
        for folder in above
        if folder != Path("/") and not any(folder.is_relative_to(path) for path in shown)
    )


def _installed_grader() -> list[Path]:
    """Return where the withheld packages would lie if they were installed among the libraries."""
    library = Path(sysconfig.get_path("purelib"))
    return [path for name in WITHHELD_PACKAGES if (path := library / name).is_dir()]


def _is_shown(folder: Path, shown: Iterable[str]) -> bool:
    return folder.is_dir() and any(folder.is_relative_to(path) for path in shown)


@functools.cache
def forbidden_calls_program() -> bytes:
    """Return the compiled filter: forbidden calls fail, all others go on."""
    import pyseccomp

    allow = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    refuse = pyseccomp.ERRNO(errno.EPERM)
    for name in FORBIDDEN_CALLS:
        allow.add_rule(refuse, name)
    # access lists are memory that no limit counts; `cp -p` goes on where a file system has none
    for call in ATTRIBUTE_CALLS:
        allow.add_rule(pyseccomp.ERRNO(errno.ENOTSUP), call)
    # glibc falls back to clone, whose flags the filter can read, when clone3 is not there
    allow.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    for bit in range(32):
        flag = 1 << bit
        if flag & NEW_NAMESPACE_FLAGS:
            allow.add_rule(refuse, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, flag, flag))
    for name in ("socket", "socketpair"):
        family = pyseccomp.Arg(0, pyseccomp.NE, AF_UNIX)
        allow.add_rule(pyseccomp.ERRNO(errno.EAFNOSUPPORT), name, family)
    # memory that no limit counts
    shared = MAP_SHARED | MAP_ANONYMOUS
    allow.add_rule(refuse, "mmap", pyseccomp.Arg(3, pyseccomp.MASKED_EQ, shared, shared))
    for name, values in FORBIDDEN_ARGUMENTS:
        equal = pyseccomp.MASKED_EQ, 0xFFFFFFFF
        allow.add_rule(
            refuse, name, *(pyseccomp.Arg(n, *equal, value) for n, value in values.items())
        )
    with tempfile.TemporaryFile() as file:
        allow.export_bpf(file)
        file.seek(0)
        return file.read()

"""Real file systems that fail: made for one test, mounted in its directory, and undone in every case.

    ext4        in an image file on a loop device: power cuts, freezing, a device of its own to throttle
    tmpfs       with a size and a number of inodes that run out
    read_only   a read-only view laid over one directory, for as long as the block lasts

A power cut is `FS_IOC_SHUTDOWN`: from that instant the file system takes and gives nothing (EIO), and what a mount
finds afterwards is what the medium held. Everything that has a descriptor on it must be closed before `unmount`; a
descriptor that was forgotten is an error here.

Mounts are seen by this process and its children only, so that not even a kill leaves one behind. All of it needs root:
the fixture `root` stands before it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import struct
import subprocess
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path

MIB = 2**20
_SHUTDOWN, _FREEZE, _THAW = 0x8004587D, 0xC0045877, 0xC0045878
_NEW_MOUNT_NAMESPACE = 0x00020000  # CLONE_NEWNS
_COMMAND_TIMEOUT_S = 60


class Cut(IntEnum):
    """What still reaches the medium as the power goes: the argument of `FS_IOC_SHUTDOWN`."""

    DATA_AND_LOG = 0
    """Everything: an orderly sync, then nothing more."""
    LOG = 1
    """The journal, and not the data that it speaks of."""
    NOTHING = 2


class Ext4:
    """An ext4 file system in an image file."""

    def __init__(self, image: Path, place: Path, options: str, most_kib: int | None) -> None:
        self.image = image
        self.place = place
        """Where it is mounted."""
        self._options = options
        self._most_kib = most_kib

    def mount(self) -> None:
        """Put it in its place; replays the journal if there is something in it."""
        _mount("-t", "ext4", "-o", f"loop,{self._options}" if self._options else "loop", self.image, self.place)
        if self._most_kib is not None:
            (Path("/sys/block") / self._device_name() / "queue/max_sectors_kb").write_text(str(self._most_kib))

    def unmount(self) -> None:
        """Take it away.

        Raises:
            AssertionError: if something on it is still open. It is detached all the same.
        """
        _unmount(self.place)

    def cut(self, how: Cut) -> None:
        """Cut the power."""
        self._ioctl(_SHUTDOWN, struct.pack("I", how))

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Inside, whoever changes something on it waits in the kernel for the end of the block."""
        self._ioctl(_FREEZE, 0)
        try:
            yield
        finally:
            self._ioctl(_THAW, 0)

    def report_error(self) -> None:
        """Let the file system believe that it has met an error; with `errors=remount-ro` it takes no change then."""
        (Path("/sys/fs/ext4") / self._device_name() / "trigger_fs_error").write_text("test")

    @property
    def device(self) -> str:
        """`major:minor` of the loop device. Only while it is mounted."""
        number = self.place.stat().st_dev
        return f"{os.major(number)}:{os.minor(number)}"

    def _device_name(self) -> str:
        return Path(f"/sys/dev/block/{self.device}").resolve().name

    def _ioctl(self, request: int, argument: int | bytes) -> None:
        fd = os.open(self.place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, request, argument)
        finally:
            os.close(fd)


@contextlib.contextmanager
def ext4(
    directory: Path,
    *,
    size_bytes: int = 32 * MIB,
    options: str = "",
    image: Path | None = None,
    most_kib: int | None = None,
) -> Iterator[Ext4]:
    """A fresh ext4, mounted.

    Args:
        directory: of the test; the image and the mount point are made in it.
        size_bytes: of the image, which is sparse.
        options: for mount, such as `data=writeback,nodelalloc`.
        image: where the image is to lie, if not in `directory`: on another file system that fails.
        most_kib: in one request to the device. The loop driver takes a request of which only a part found room for
            done; one of a page is stored or refused.
    """
    image = image or directory / "ext4.img"
    place = directory / "ext4"
    place.mkdir(exist_ok=True)
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(size_bytes)
    _command("mkfs.ext4", "-q", "-F", "-b", "4096", image)
    disk = Ext4(image, place, options, most_kib)
    disk.mount()
    try:
        yield disk
    finally:
        if os.path.ismount(place):
            disk.unmount()
        image.unlink()


@contextlib.contextmanager
def tmpfs(directory: Path, *, size_bytes: int, inodes: int | None = None) -> Iterator[Path]:
    """A file system in memory that is full when it is full. Gives the place where it is mounted."""
    place = directory / "tmpfs"
    place.mkdir(exist_ok=True)
    limits = f"size={size_bytes}" + (f",nr_inodes={inodes}" if inodes is not None else "")
    _mount("-t", "tmpfs", "-o", limits, "tmpfs", place)
    try:
        yield place
    finally:
        _unmount(place)


def resize_tmpfs(place: Path, size_bytes: int) -> None:
    """Give a tmpfs more room, or less."""
    _mount("-o", f"remount,size={size_bytes}", place)


@contextlib.contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """Inside, nothing in the directory can be made, opened for writing, renamed or removed by its path: EROFS.

    The kernel refuses to make a whole file system read-only while a file on it is open for writing. What is open
    already goes on working here too.
    """
    _mount("--bind", directory, directory)
    try:
        _mount("-o", "remount,bind,ro", directory)
        yield
    finally:
        _unmount(directory)


@contextlib.contextmanager
def filled(place: Path, *, leave_bytes: int = 0) -> Iterator[Path]:
    """Inside, a foreign file takes up all the room of the file system but for `leave_bytes`. Gives that file."""
    foreign = place / "foreign"
    try:
        with foreign.open("wb") as file:
            room = os.statvfs(place)
            size_bytes = room.f_bavail * room.f_frsize - leave_bytes
            if size_bytes > 0:
                os.posix_fallocate(file.fileno(), 0, size_bytes)
        yield foreign
    finally:
        foreign.unlink(missing_ok=True)


@contextlib.contextmanager
def out_of_inodes(place: Path) -> Iterator[None]:
    """Inside, foreign empty files take up every inode of the file system."""
    directory = place / "foreign"
    directory.mkdir()
    made = []
    try:
        for number in range(os.statvfs(place).f_ffree):
            made.append(directory / str(number))
            made[-1].touch()
        yield
    finally:
        for path in made:
            path.unlink(missing_ok=True)
        directory.rmdir()


@contextlib.contextmanager
def slow_writes(disk: Ext4, writes_per_s: int) -> Iterator[Path]:
    """Hold the tasks of a control group to so many writes a second on this device. Gives the group's list of tasks.

    A thread that is written into it stays throttled until the block ends: every task goes back to the parent.
    """
    parent = Path("/sys/fs/cgroup/blkio")
    group = parent / f"edge-gateway-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "blkio.throttle.write_iops_device").write_text(f"{disk.device} {writes_per_s}")
        yield group / "tasks"
    finally:
        for task in (group / "tasks").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (parent / "tasks").write_text(task)
        group.rmdir()


@functools.cache
def own_mounts() -> None:
    """From here on, mounts of this thread and of those that it starts are theirs alone. Once per process."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNT_NAMESPACE) != 0:
        raise OSError(ctypes.get_errno(), "cannot leave the mount namespace")
    _command("mount", "--make-rprivate", "/")


def _mount(*arguments: str | Path) -> None:
    own_mounts()
    _command("mount", *arguments)


def _unmount(place: Path) -> None:
    done = subprocess.run(["umount", place], capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S, check=False)
    if done.returncode != 0:
        holders = _holders(place)
        subprocess.run(["umount", "-l", place], capture_output=True, timeout=_COMMAND_TIMEOUT_S, check=False)
        raise AssertionError(f"{done.stderr.strip()}; open here: {holders}")


def _holders(place: Path) -> list[str]:
    """Files on it that this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = link.readlink()
            if target.is_relative_to(place):
                found.append(str(target.relative_to(place)))
    return found


def _command(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr.strip()}"

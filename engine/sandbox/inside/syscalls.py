"""The system calls that a sandboxed program is refused, as a filter for the kernel (seccomp-BPF). Standard library only.

A list of what is refused rather than of what is let through: what reads and writes files is bounded by Landlock or bubblewrap, and
Python's own needs differ from version to version. What is newer than the list answers ENOSYS, as on an older kernel. Knows no program.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

# {name: (number on x86-64, number on AArch64 and other machines with the kernel's generic table)}; None where there is no such call.
REFUSED: dict[str, tuple[int | None, int | None]] = {
    # Processes and programs: nothing but threads of its own.
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    # Signals, even to itself: where it runs as its owner does, they reach the owner's other programs.
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    # The network, and sockets that lead to other programs.
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    # Looking into other programs, or hampering them.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "get_robust_list": (274, 100),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
    "sched_setaffinity": (203, 122),
    # What of files isn't Landlock's business: modes, owners, attributes, times, watching, handles.
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "utime": (132, None),
    "utimes": (235, None),
    "utimensat": (280, 88),
    "futimesat": (261, None),
    "truncate": (76, 45),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "sync": (162, 81),
    "syncfs": (306, 267),
    "flock": (73, 32),
    # Memory that the limit on address space doesn't count.
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    # The kernel and the machine.
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "io_setup": (206, 0),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "reboot": (169, 142),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "iopl": (172, None),
    "ioperm": (173, None),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "personality": (135, 92),
    "modify_ldt": (154, None),
    "uselib": (134, None),
}
NEWEST = 450
# machine: (column of the table, how the kernel names it to filters, clone, clone3, prlimit64)
MACHINES = {
    "x86_64": (0, 0xC000003E, 56, 435, 302),
    "aarch64": (1, 0xC00000B7, 220, 435, 261),
    "arm64": (1, 0xC00000B7, 220, 435, 261),
}
CLONE_THREAD = 0x10000

_LOAD, _EQUAL, _ABOVE, _HAS, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16  # places in struct seccomp_data; little-endian, so the low half comes first
_SET_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2


def known() -> bool:
    """Whether this machine's numbers are in the table."""
    return platform.machine() in MACHINES


def program(machine: str) -> bytes:
    """The filter. Each instruction: code, jump if true, jump if false, constant."""
    column, name, clone, clone3, prlimit = MACHINES[machine]
    refuse, missing = _ERROR | errno.EPERM, _ERROR | errno.ENOSYS
    code = [
        (_LOAD, 0, 0, _MACHINE),
        (_EQUAL, 1, 0, name),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_ABOVE, 0, 1, NEWEST),
        (_RETURN, 0, 0, missing),
        # Its flags lie in memory, where a filter can't look; the C library then uses clone, whose flags can be seen.
        (_EQUAL, 0, 1, clone3),
        (_RETURN, 0, 0, missing),
    ]
    for numbers in REFUSED.values():
        if numbers[column] is not None:
            code += [(_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, refuse)]
    # Threads, but no processes.
    code += [(_EQUAL, 0, 4, clone), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_HAS, 1, 0, CLONE_THREAD), (_RETURN, 0, 0, refuse)]
    code += [(_RETURN, 0, 0, _ALLOW)]
    # Its own limits, but no other program's.
    code += [(_EQUAL, 0, 3, prlimit), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_EQUAL, 1, 0, 0), (_RETURN, 0, 0, refuse), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *line) for line in code)


def apply() -> None:
    """Puts this thread, and what it starts, behind the filter, for good. Raises OSError."""
    code = program(platform.machine())
    libc = ctypes.CDLL(None, use_errno=True)
    held = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: a count, padding, a pointer.
    told = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", len(code) // 8, ctypes.addressof(held)))
    if libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_SET_SECCOMP, _FILTER, told, 0, 0):
        raise OSError(ctypes.get_errno(), "the filter of system calls was refused")

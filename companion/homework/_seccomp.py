"""Calls of the kernel that no homework needs, refused in the sandbox.

Some take memory that belongs to no process, and so escape every limit (`memfd_create`, System V
shared memory); the others are where faults of the kernel are found. The filter is a short program
for the kernel's packet filter, which bubblewrap installs before the submission starts.
"""

import platform
import struct

__all__ = ["program"]

# name: number on x86-64, on 64-bit ARM
REFUSED = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "mq_open": (240, 180),
    "msgget": (68, 186),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setns": (308, 268),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "shmget": (29, 194),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, AUDIT_ARCH_...
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | 38  # 38: ENOSYS, "there is no such call"
NUMBER, MACHINE = 0, 4  # where the kernel puts them
OTHER_ABI = 0x40000000  # of x86-64: the same calls under other numbers


def program() -> bytes:
    """The filter for this machine; empty for one whose numbers are not known here."""
    column, machine = MACHINES.get(platform.machine(), (0, 0))
    if not machine:
        return b""
    numbers = sorted(row[column] for row in REFUSED.values())
    n = len(numbers)
    code = [
        (LOAD, 0, 0, MACHINE),
        (EQUAL, 0, n + 3, machine),  # a 32-bit program: everything is refused
        (LOAD, 0, 0, NUMBER),
        (AT_LEAST, n + 1, 0, OTHER_ABI),
        *((EQUAL, n - i, 0, number) for i, number in enumerate(numbers)),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
    ]
    return b"".join(struct.pack("<HBBI", *line) for line in code)

"""Named numpy arrays in one file: an .npz without pickle or compression that numpy.load reads too.

Equal arrays give equal bytes (there is no time stamp), and every array starts at a multiple of 64
bytes, so that it can be mapped into memory. A file takes its name when it is whole and on the disk;
until then it is NAME.new, which the next attempt overwrites.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from edgemoe.errors import ModelFormatError, ReadError

Array = npt.NDArray[Any]

_ALIGNMENT = 64
_PIECE_BYTES = 4 << 20
_LOCAL_HEADER_BYTES = 30
_ZIP64_BYTES = 20  # of the extra field that zipfile writes for members of unknown size
_PADDING_FIELD = 0xD935  # "alignment" among the registered extra fields
_MAX_MEMBERS = 64
_MAX_DIMENSIONS = 8


def write_arrays(path: str, arrays: Mapping[str, Array]) -> None:
    """Writes the file `path`. Raises ReadError when the system refuses."""
    unfinished = path + ".new"
    try:
        with open(unfinished, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for name, array in arrays.items():
                    _write_member(archive, file, name, array)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _sync_folder(path)
    except OSError as error:
        raise ReadError(f"{path}: cannot be written: {error.strerror or error}") from None


def _write_member(archive: zipfile.ZipFile, file: BinaryIO, name: str, array: Array) -> None:
    member = zipfile.ZipInfo(name + ".npy", date_time=(1980, 1, 1, 0, 0, 0))
    name_bytes = len(member.filename.encode())
    begin = file.tell() + _LOCAL_HEADER_BYTES + name_bytes + _ZIP64_BYTES + 4
    padding = -begin % _ALIGNMENT
    member.extra = struct.pack("<HH", _PADDING_FIELD, padding) + bytes(padding)
    header = io.BytesIO()
    whole = np.ascontiguousarray(array)
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(whole))
    with archive.open(member, "w", force_zip64=True) as out:
        out.write(header.getvalue())
        data = whole.reshape(-1).view(np.uint8).data if whole.size else memoryview(b"")
        for first in range(0, len(data), _PIECE_BYTES):
            out.write(data[first : first + _PIECE_BYTES])


def _sync_folder(path: str) -> None:
    """Puts the new name on the disk, where the file system can."""
    try:
        folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(folder)
    except OSError:
        pass
    finally:
        os.close(folder)


def checksum_of(path: str) -> str:
    """16 hexadecimal digits that depend on names and contents of all arrays of a sound file."""
    try:
        with zipfile.ZipFile(path) as archive:
            rows = [f"{one.filename} {one.file_size} {one.CRC}\n" for one in archive.infolist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from None
    return blake2b("".join(sorted(rows)).encode(), digest_size=8).hexdigest()


def _unreadable(path: str, error: Exception) -> Exception:
    if isinstance(error, OSError):
        return ReadError(f"{path}: cannot be read: {error.strerror or error}")
    return ModelFormatError(f"{path}: is damaged or not such a file ({error})")


def read_arrays(path: str, *, verify: bool = True) -> dict[str, Array]:
    """The arrays of a file, mapped into memory read-only.

    With `verify` the checksum of each is compared. Raises ReadError when the file cannot be read
    and ModelFormatError when it is damaged or no such file.
    """
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len(members) > _MAX_MEMBERS:
                raise ValueError(f"{len(members)} members")
            whole = np.memmap(file, dtype=np.uint8, mode="r")
            return {
                one.filename.removesuffix(".npy"): _map_member(whole, one, verify)
                for one in members
            }
    except ReadError:
        raise
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, struct.error) as error:
        raise _unreadable(path, error) from None


def _map_member(whole: npt.NDArray[np.uint8], member: zipfile.ZipInfo, verify: bool) -> Array:
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise ValueError(f"{member.filename} is compressed or encrypted")
    at = member.header_offset
    local = bytes(whole[at : at + _LOCAL_HEADER_BYTES])
    signature, name_bytes, extra_bytes = struct.unpack("<4s22xHH", local)
    if signature != b"PK\3\4":
        raise ValueError(f"{member.filename} has no header")
    begin = at + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes
    data = whole[begin : begin + member.file_size]
    if len(data) != member.file_size:
        raise ValueError(f"{member.filename} is cut short")
    if verify:
        _check(data, member)
    head = io.BytesIO(bytes(data[:4096]))
    if np.lib.format.read_magic(head) != (1, 0):
        raise ValueError(f"{member.filename} is of another version")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
    if fortran or dtype.hasobject or len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"{member.filename} has an unknown layout")
    count = 1
    for size in shape:
        count *= size
    if count * dtype.itemsize != member.file_size - head.tell():
        raise ValueError(f"{member.filename} has another size than its header says")
    array: Array = np.ndarray(shape, dtype, buffer=data, offset=head.tell())
    return array


def _check(data: npt.NDArray[np.uint8], member: zipfile.ZipInfo) -> None:
    value = 0
    for first in range(0, len(data), _PIECE_BYTES):
        value = zlib.crc32(data[first : first + _PIECE_BYTES].data, value)
    if value != member.CRC:
        raise ValueError(f"{member.filename} has another checksum than its contents")

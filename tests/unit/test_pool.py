"""Pools cannot be reached outside of their slots, and views outlive what made them."""

import fcntl
import gc
import os

import numpy as np
import pytest

from ovpipe.errors import PreflightError, WireError
from ovpipe.transport.lease import Lease, Roots
from ovpipe.transport.pool import DTYPE_CODE, DTYPES, PAGE, Pool, make_memfd, slot_size

U8 = DTYPE_CODE[np.dtype(np.uint8)]


@pytest.fixture
def fd():
    fd = make_memfd("test", 4 * PAGE)
    yield fd
    os.close(fd)


def test_a_memfd_is_sealed_and_reserved(fd):
    seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    assert seals == fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    assert os.fstat(fd).st_blocks * 512 >= 4 * PAGE
    for size in (0, 5 * PAGE):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)


def test_too_much_memory_is_a_preflight_error():
    with pytest.raises(PreflightError, match="MiB"):
        make_memfd("test", 1 << 55)


def test_what_the_owner_writes_the_reader_sees_and_cannot_write(fd):
    writer = Pool(0, 0, fd, 2, 2 * PAGE, writable=True)
    reader = Pool(0, 0, fd, 2, 2 * PAGE, writable=False)
    out = writer.view(1, U8, (3, 5)).reshape(3, 5)
    out[:] = np.arange(15).reshape(3, 5)
    seen = reader.view(1, U8, (3, 5)).reshape(3, 5)
    assert (seen == out).all()
    with pytest.raises(ValueError, match="read-only"):
        seen[0, 0] = 1
    assert not reader.view(0, U8, (4,)).any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_that_travels(fd, dtype):
    view = Pool(0, 0, fd, 4, PAGE, writable=True).view(2, DTYPE_CODE[dtype], (2, 3))
    assert view.dtype == dtype
    assert view.shape == (6,)


@pytest.mark.parametrize(
    ("slot", "code", "shape", "kind"),
    [
        (4, U8, (1,), "slot"),
        (-1, U8, (1,), "slot"),
        (2**32, U8, (1,), "slot"),
        (0, len(DTYPES), (1,), "dtype"),
        (0, 255, (1,), "dtype"),
        (0, U8, (PAGE + 1,), "shape"),
        (3, U8, (PAGE + 1,), "shape"),
        (0, U8, (2**32, 2**32), "shape"),
        (0, U8, (2**63, 2, 2), "shape"),
        (0, DTYPE_CODE[np.dtype(np.float64)], (PAGE // 8 + 1,), "shape"),
    ],
)
def test_nothing_reaches_outside(fd, slot, code, shape, kind):
    with pytest.raises(WireError) as error:
        Pool(0, 0, fd, 4, PAGE, writable=False).view(slot, code, shape)
    assert error.value.kind == kind


def test_empty_arrays_travel(fd):
    assert Pool(0, 0, fd, 4, PAGE, writable=False).view(0, U8, (0, 4)).reshape(0, 4).size == 0


@pytest.mark.parametrize(
    ("nbytes", "size"), [(0, PAGE), (1, PAGE), (PAGE, PAGE), (PAGE + 1, 2 * PAGE)]
)
def test_slots_are_whole_pages(nbytes, size):
    assert slot_size(nbytes) == size


def test_roots_find_whole_arrays_and_forget_dead_ones(fd):
    roots, died = Roots(), []
    root = Pool(0, 0, fd, 4, PAGE, writable=True).view(1, U8, (6,))
    roots.add(root, 0, 1, lambda: died.append(1))
    array = root.reshape(2, 3)
    assert roots.find(array) == (0, 1)
    assert roots.find(array.reshape(3, 2)) == (0, 1)
    assert roots.find(array[:1]) is None
    assert roots.find(array[:, ::-1]) is None
    assert roots.find(np.zeros(6, np.uint8)) is None
    crop = array[:1]
    del root, array
    gc.collect()
    assert not died
    del crop
    assert died == [1]


def test_E09_a_lease_is_released_once_when_stage_and_views_are_done():
    released = []
    lease = Lease(released.append, views=2)
    lease.view_died()
    lease.finish(3)
    assert lease.kept
    assert not released
    lease.view_died()
    assert released == [3]
    lease.force()
    lease.finish(4)
    assert released == [3]

"""Plain AES-256-GCM through OpenSSL's EVP layer, from memory to memory, in pieces of 1 MiB on several threads: no format, no file.
Nothing that authenticates can be faster."""

from __future__ import annotations

import ctypes
import ctypes.util
from concurrent.futures import ThreadPoolExecutor

_PIECE = 2**20
_GET_TAG, _SET_TAG = 0x10, 0x11
_crypto = ctypes.CDLL(ctypes.util.find_library("crypto"))
for _name in ("EVP_CIPHER_CTX_new", "EVP_aes_256_gcm"):
    getattr(_crypto, _name).restype = ctypes.c_void_p
_KEY = bytes(32)


class PlainAes:
    """Ciphertext of ``size`` bytes, and room to decrypt it into."""

    def __init__(self, size: int, threads: int) -> None:
        self._pieces = size // _PIECE
        self._threads = threads
        self._sealed = (ctypes.c_char * size)()
        self._clear = (ctypes.c_char * size)()
        self._tags = [self._run(1, i, ctypes.create_string_buffer(16)) for i in range(self._pieces)]

    def decrypt(self) -> None:
        """All of it, each piece held against its tag."""

        def share(first: int) -> None:
            for i in range(first, self._pieces, self._threads):
                self._run(0, i, self._tags[i])

        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(share, range(self._threads)))

    def _run(self, encrypt: int, i: int, tag: ctypes.Array[ctypes.c_char]) -> ctypes.Array[ctypes.c_char]:
        source, target = (self._clear, self._sealed) if encrypt else (self._sealed, self._clear)
        context, length = ctypes.c_void_p(_crypto.EVP_CIPHER_CTX_new()), ctypes.c_int()
        here, there = (ctypes.c_void_p(ctypes.addressof(room) + i * _PIECE) for room in (source, target))
        done = _crypto.EVP_CipherInit_ex(context, ctypes.c_void_p(_crypto.EVP_aes_256_gcm()), None, _KEY, i.to_bytes(12, "big"), encrypt)
        done &= _crypto.EVP_CipherUpdate(context, there, ctypes.byref(length), here, _PIECE)
        if not encrypt:
            done &= _crypto.EVP_CIPHER_CTX_ctrl(context, _SET_TAG, 16, tag)
        done &= _crypto.EVP_CipherFinal_ex(context, ctypes.create_string_buffer(16), ctypes.byref(length))
        if encrypt:
            done &= _crypto.EVP_CIPHER_CTX_ctrl(context, _GET_TAG, 16, tag)
        _crypto.EVP_CIPHER_CTX_free(context)
        if done != 1:
            raise RuntimeError("[plain_aes] Expected AES-256-GCM from OpenSSL, received an error.")
        return tag

// The part of PKCS#11 version 2.40 that is used here, written after the OASIS text.
#pragma once

namespace hushgrad::pkcs11 {

using Ulong = unsigned long;
using Result = Ulong;

struct Attribute {
  Ulong type;
  void* value;
  Ulong length;
};
struct Mechanism {
  Ulong mechanism;
  void* parameter;
  Ulong parameter_length;
};
struct TokenInfo {
  unsigned char label[32], manufacturer[32], model[16], serial[16];
  Ulong numbers[11];  // flags first
  unsigned char versions[4], time[16];
};

// The functions in the order of the standard; a table of plain pointers, each cast where it is called.
enum Function {
  kInitialize = 0,
  kGetSlotList = 4,
  kGetTokenInfo = 6,
  kGetMechanismInfo = 8,
  kOpenSession = 12,
  kLogin = 18,
  kCreateObject = 20,
  kDestroyObject = 22,
  kGetAttributeValue = 24,
  kSetAttributeValue = 25,
  kFindObjectsInit = 26,
  kFindObjects = 27,
  kFindObjectsFinal = 28,
  kGenerateKey = 58,
  kWrapKey = 60,
  kUnwrapKey = 61,
  kFunctions = 68,
};
struct FunctionList {
  unsigned char version[2];
  void* functions[kFunctions];
};

inline constexpr Ulong kUnavailable = ~0UL;

namespace attribute {
inline constexpr Ulong kClass = 0x000, kToken = 0x001, kPrivate = 0x002, kLabel = 0x003, kValue = 0x011, kKeyType = 0x100,
                       kId = 0x102, kSensitive = 0x103, kEncrypt = 0x104, kDecrypt = 0x105, kWrap = 0x106,
                       kUnwrap = 0x107, kSign = 0x108, kVerify = 0x10A, kDerive = 0x10C, kValueLength = 0x161,
                       kExtractable = 0x162, kNeverExtractable = 0x164, kAlwaysSensitive = 0x165, kModifiable = 0x170;
}
namespace constant {
inline constexpr Ulong kSecretKey = 4, kAes = 0x1F, kGenericSecret = 0x10, kUser = 1, kSerialSession = 4, kRwSession = 2;
inline constexpr Ulong kAesKeyGen = 0x1080, kAesKeyWrapPad = 0x210A, kAesKeyWrapKwp = 0x210B;
}
namespace result {
inline constexpr Ulong kOk = 0, kGeneralError = 0x05, kFunctionFailed = 0x06, kDataInvalid = 0x20,
                       kDataLengthRange = 0x21, kDeviceError = 0x30, kDeviceRemoved = 0x32, kEncryptedDataInvalid = 0x40,
                       kEncryptedDataLengthRange = 0x41, kPinIncorrect = 0xA0, kPinInvalid = 0xA1, kPinLengthRange = 0xA2,
                       kPinLocked = 0xA4, kSessionHandleInvalid = 0xB3, kTokenNotPresent = 0xE0,
                       kUserAlreadyLoggedIn = 0x100, kUserNotLoggedIn = 0x101, kWrappedKeyInvalid = 0x110,
                       kWrappedKeyLengthRange = 0x112;
}

}  // namespace hushgrad::pkcs11

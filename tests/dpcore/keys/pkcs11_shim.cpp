// A PKCS#11 module for tests: passes every call on to the module named in HUSHGRAD_SHIM_MODULE, and breaks what the word
// in the file HUSHGRAD_SHIM_FAULT asks for.
#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include "dpcore/keys/pkcs11_helper/cryptoki.h"

namespace {

using namespace hushgrad::pkcs11;

FunctionList* real = nullptr;
FunctionList faked;

std::string fault() {
  const char* path = std::getenv("HUSHGRAD_SHIM_FAULT");
  std::string word;
  if (path != nullptr) std::ifstream(path) >> word;
  return word;
}

template <typename... Arguments>
Result pass(Function function, Arguments... arguments) {
  return reinterpret_cast<Result (*)(Arguments...)>(real->functions[function])(arguments...);
}

Result injected() {
  const std::string word = fault();
  if (word == "device_error") return result::kDeviceError;
  if (word == "removed") return result::kDeviceRemoved;
  if (word == "session_invalid") return result::kSessionHandleInvalid;
  if (word == "not_logged_in") return result::kUserNotLoggedIn;
  if (word == "general_error") return result::kGeneralError;
  if (word == "crash") std::abort();
  if (word == "hang") ::sleep(20);  // and then an answer, for who would wait
  return result::kOk;
}

Result login(Ulong session, Ulong user, unsigned char* pin, Ulong size) {
  if (fault() == "pin_locked") return result::kPinLocked;
  return pass(kLogin, session, user, pin, size);
}

Result wrap_key(Ulong session, Mechanism* mechanism, Ulong wrapping, Ulong key, unsigned char* out, Ulong* size) {
  if (const Result broken = injected(); broken != result::kOk) return broken;
  const Result code = pass(kWrapKey, session, mechanism, wrapping, key, out, size);
  if (fault() == "short") *size = 24;
  return code;
}

Result unwrap_key(Ulong session, Mechanism* mechanism, Ulong wrapping, unsigned char* wrapped, Ulong size,
                  Attribute* attributes, Ulong count, Ulong* key) {
  if (const Result broken = injected(); broken != result::kOk) return broken;
  return pass(kUnwrapKey, session, mechanism, wrapping, wrapped, size, attributes, count, key);
}

Result set_attribute(Ulong session, Ulong object, Attribute* attributes, Ulong count) {
  if (fault() == "update_fails") return result::kDeviceError;
  return pass(kSetAttributeValue, session, object, attributes, count);
}

Result get_attribute(Ulong session, Ulong object, Attribute* attributes, Ulong count) {
  const Result code = pass(kGetAttributeValue, session, object, attributes, count);
  const std::string word = fault();
  const Ulong type = attributes[0].type;
  if (attributes[0].value == nullptr) return code;
  const auto lie = [&](unsigned char value) { *static_cast<unsigned char*>(attributes[0].value) = value; };
  if (word == "extractable" && type == attribute::kExtractable) lie(1);
  if (word == "not_sensitive" && type == attribute::kSensitive) lie(0);
  if (word == "decrypts" && type == attribute::kDecrypt) lie(1);
  if (word == "short_key" && type == attribute::kValueLength) lie(16);
  if (word == "short_value" && type == attribute::kValue) attributes[0].length = 16;
  return code;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) Result C_GetFunctionList(FunctionList** list) {
  void* library = ::dlopen(std::getenv("HUSHGRAD_SHIM_MODULE"), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return result::kGeneralError;
  using Get = Result (*)(FunctionList**);
  const auto get = reinterpret_cast<Get>(::dlsym(library, "C_GetFunctionList"));
  if (get == nullptr || get(&real) != result::kOk) return result::kGeneralError;
  std::memcpy(&faked, real, sizeof faked);
  faked.functions[kLogin] = reinterpret_cast<void*>(&login);
  faked.functions[kWrapKey] = reinterpret_cast<void*>(&wrap_key);
  faked.functions[kUnwrapKey] = reinterpret_cast<void*>(&unwrap_key);
  faked.functions[kGetAttributeValue] = reinterpret_cast<void*>(&get_attribute);
  faked.functions[kSetAttributeValue] = reinterpret_cast<void*>(&set_attribute);
  *list = &faked;
  return result::kOk;
}

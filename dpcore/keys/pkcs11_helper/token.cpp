#include "dpcore/keys/pkcs11_helper/token.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstring>

#include "dpcore/keys/pkcs11_wire.h"

namespace hushgrad::pkcs11 {
namespace {

using namespace constant;

constexpr std::size_t kKeyBytes = 32, kWrappedBytes = 40;
constexpr std::size_t kMaxLabel = 1024;

std::string in_hex(Ulong code) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%lx", code);
  return text;
}

[[noreturn]] void fail(const char* what, Result code) {
  if (code == result::kPinIncorrect || code == result::kPinInvalid || code == result::kPinLengthRange) {
    throw Failure("pin", "Expected the PIN of the token, received another.");
  }
  if (code == result::kPinLocked) throw Failure("pin", "Expected a token whose PIN is usable, received a locked one.");
  throw Failure("device", std::string("Expected the token to ") + what + ", received error " + in_hex(code) + ".");
}

template <typename T>
Attribute of(Ulong type, T& value) {
  return {type, &value, sizeof value};
}
Attribute of(Ulong type, const std::string& value) {
  return {type, const_cast<char*>(value.data()), value.size()};
}

// Attributes of the standard are one byte for a truth value.
unsigned char yes = 1, no = 0;
Ulong secret_key = kSecretKey, aes = kAes, generic_secret = kGenericSecret;

}  // namespace

template <typename... Arguments>
Result Token::call(Function function, Arguments... arguments) const {
  return reinterpret_cast<Result (*)(Arguments...)>(functions_->functions[function])(arguments...);
}

template <typename... Arguments>
void Token::expect(const char* what, Function function, Arguments... arguments) const {
  const Result code = call(function, arguments...);
  if (code != result::kOk) fail(what, code);
}

Token::Token(const std::string& module, const std::string& label, const std::string& pin) {
  void* library = ::dlopen(module.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw Failure("device", "Expected a PKCS#11 module at " + module + ", received none that loads.");
  using GetFunctionList = Result (*)(FunctionList**);
  const auto get = reinterpret_cast<GetFunctionList>(::dlsym(library, "C_GetFunctionList"));
  if (get == nullptr || get(&functions_) != result::kOk || functions_ == nullptr || functions_->version[0] < 2) {
    throw Failure("device", "Expected a PKCS#11 module of version 2 or later at " + module + ", received another library.");
  }
  expect("initialize", kInitialize, static_cast<void*>(nullptr));
  const Ulong slot = find_token(label);
  for (const Ulong mechanism : {kAesKeyWrapKwp, kAesKeyWrapPad}) {
    Ulong info[3];
    if (mechanism_ == 0 && call(kGetMechanismInfo, slot, mechanism, static_cast<Ulong*>(info)) == result::kOk) {
      mechanism_ = mechanism;
    }
  }
  if (mechanism_ == 0) throw Failure("device", "Expected a token with AES key wrap with padding, received one without.");
  void* nothing = nullptr;
  expect("open a session", kOpenSession, slot, kSerialSession | kRwSession, nothing, nothing, &session_);
  const Result code = call(kLogin, session_, kUser, const_cast<char*>(pin.data()), static_cast<Ulong>(pin.size()));
  if (code != result::kOk && code != result::kUserAlreadyLoggedIn) fail("accept the PIN", code);
}

Ulong Token::find_token(const std::string& label) const {
  Ulong slots[256], count = 256;
  expect("list its slots", kGetSlotList, static_cast<unsigned char>(1), static_cast<Ulong*>(slots), &count);
  std::string padded = label;
  padded.resize(32, ' ');
  Ulong found = kUnavailable;
  for (Ulong i = 0; i < count; ++i) {
    TokenInfo info{};
    if (call(kGetTokenInfo, slots[i], &info) != result::kOk || std::memcmp(info.label, padded.data(), 32) != 0) continue;
    if (found != kUnavailable) throw Failure("device", "Expected one token labelled " + label + ", received several.");
    found = slots[i];
  }
  if (found == kUnavailable) throw Failure("device", "Expected a token labelled " + label + ", received none.");
  return found;
}

std::vector<Ulong> Token::find(std::vector<Attribute> pattern) const {
  expect("search for keys", kFindObjectsInit, session_, pattern.data(), static_cast<Ulong>(pattern.size()));
  std::vector<Ulong> found;
  for (Ulong count = 1; count > 0;) {
    Ulong objects[64];
    const Result code = call(kFindObjects, session_, static_cast<Ulong*>(objects), 64UL, &count);
    if (code != result::kOk) {
      call(kFindObjectsFinal, session_);
      fail("search for keys", code);
    }
    found.insert(found.end(), objects, objects + count);
  }
  expect("search for keys", kFindObjectsFinal, session_);
  return found;
}

std::string Token::bytes(Ulong object, Ulong type) const {
  Attribute query{type, nullptr, 0};
  expect("tell an attribute of a key", kGetAttributeValue, session_, object, &query, 1UL);
  if (query.length == kUnavailable || query.length > kMaxLabel) {
    throw Failure("device", "Expected the token to tell an attribute of a key, received none.");
  }
  std::string value(query.length, '\0');
  query.value = value.data();
  expect("tell an attribute of a key", kGetAttributeValue, session_, object, &query, 1UL);
  value.resize(query.length);
  return value;
}

bool Token::flag(Ulong object, Ulong type) const {
  const std::string value = bytes(object, type);
  if (value.size() != 1) throw Failure("device", "Expected a truth value of the token, received another length.");
  return value[0] != 0;
}

Ulong Token::number(Ulong object, Ulong type) const {
  const std::string value = bytes(object, type);
  Ulong number = 0;
  if (value.size() != sizeof number) throw Failure("device", "Expected a number of the token, received another length.");
  std::memcpy(&number, value.data(), sizeof number);
  return number;
}

Ulong Token::key(const std::string& id) const {
  const std::vector<Ulong> found = find({of(attribute::kClass, secret_key), of(attribute::kId, id), of(attribute::kToken, yes)});
  if (found.empty()) throw Failure("key", "Expected a key of that id on the token, received none.");
  if (found.size() > 1) throw Failure("key", "Expected one key of that id on the token, received several.");
  return found.front();
}

void Token::check(Ulong key) const {
  const auto require = [](bool holds, const char* what) {
    if (!holds) {
      throw Failure("key", std::string("Expected a key that is ") + what +
                               ", received one that is not: somebody changed it, or the token does not protect it.");
    }
  };
  require(number(key, attribute::kKeyType) == kAes && number(key, attribute::kValueLength) == kKeyBytes, "AES of 256 bits");
  require(!flag(key, attribute::kExtractable) && flag(key, attribute::kNeverExtractable), "not and never was extractable");
  require(flag(key, attribute::kSensitive) && flag(key, attribute::kAlwaysSensitive), "and always was sensitive");
  require(!flag(key, attribute::kEncrypt) && !flag(key, attribute::kDecrypt), "for wrapping only");
}

std::vector<Token::Entry> Token::list() {
  std::vector<Entry> entries;
  for (const Ulong key : find({of(attribute::kClass, secret_key), of(attribute::kToken, yes), of(attribute::kKeyType, aes)})) {
    entries.push_back({bytes(key, attribute::kId), bytes(key, attribute::kLabel)});
  }
  return entries;
}

std::string Token::wrap_with(Ulong wrapping_key, const std::string& data_key) const {
  Attribute attributes[] = {of(attribute::kClass, secret_key), of(attribute::kKeyType, generic_secret),
                            of(attribute::kToken, no),         of(attribute::kSensitive, no),
                            of(attribute::kExtractable, yes),  of(attribute::kValue, data_key)};
  Ulong object = 0;
  expect("take a data key", kCreateObject, session_, static_cast<Attribute*>(attributes), 6UL, &object);
  Mechanism mechanism{mechanism_, nullptr, 0};
  std::string wrapped(256, '\0');
  Ulong size = wrapped.size();
  const Result code = call(kWrapKey, session_, &mechanism, wrapping_key, object, wrapped.data(), &size);
  call(kDestroyObject, session_, object);
  if (code != result::kOk) fail("wrap", code);
  if (size != kWrappedBytes) throw Failure("device", "Expected 40 bytes from the token, received another length.");
  wrapped.resize(size);
  return wrapped;
}

std::string Token::wrap(const std::string& id, const std::string& data_key) {
  if (data_key.size() != kKeyBytes) throw Failure("device", "Expected a data key of 32 bytes.");
  const Ulong wrapping_key = key(id);
  check(wrapping_key);
  return wrap_with(wrapping_key, data_key);
}

// Whether the token is well: some answer "general error" to bytes that do not unwrap, others when they break.
bool Token::works(Ulong wrapping_key) const {
  try {
    wrap_with(wrapping_key, std::string(kKeyBytes, 'x'));
    return true;
  } catch (const Failure&) {
    return false;
  }
}

std::string Token::unwrap(const std::string& id, const std::string& wrapped) {
  const Ulong wrapping_key = key(id);
  check(wrapping_key);
  if (wrapped.size() != kWrappedBytes) throw Failure("seal", "Expected 40 wrapped bytes, received another length.");
  // No value length in the template: SoftHSM refuses it for this mechanism. The length is checked below.
  Attribute attributes[] = {of(attribute::kClass, secret_key), of(attribute::kKeyType, generic_secret),
                            of(attribute::kToken, no), of(attribute::kSensitive, no),
                            of(attribute::kExtractable, yes)};
  Mechanism mechanism{mechanism_, nullptr, 0};
  Ulong object = 0;
  const Result code = call(kUnwrapKey, session_, &mechanism, wrapping_key, const_cast<char*>(wrapped.data()),
                           static_cast<Ulong>(wrapped.size()), static_cast<Attribute*>(attributes), 5UL, &object);
  const bool says_altered = code == result::kWrappedKeyInvalid || code == result::kWrappedKeyLengthRange ||
                            code == result::kEncryptedDataInvalid || code == result::kEncryptedDataLengthRange ||
                            code == result::kDataInvalid || code == result::kDataLengthRange;
  const bool unclear = code == result::kGeneralError || code == result::kFunctionFailed;
  if (says_altered || (unclear && works(wrapping_key))) {
    throw Failure("seal", "Expected a data key wrapped under the named key, received one that was altered or wrapped under "
                          "another. Use an intact copy of the file.");
  }
  if (code != result::kOk) fail("unwrap", code);
  std::string data_key;
  try {
    data_key = bytes(object, attribute::kValue);
  } catch (const Failure&) {
    call(kDestroyObject, session_, object);
    throw;
  }
  call(kDestroyObject, session_, object);
  if (data_key.size() != kKeyBytes) {
    wipe(data_key);
    throw Failure("device", "Expected a data key of 32 bytes from the token, received another length.");
  }
  return data_key;
}

void Token::generate(const std::string& id, const std::string& label) {
  Mechanism mechanism{kAesKeyGen, nullptr, 0};
  Ulong length = kKeyBytes;
  Attribute attributes[] = {of(attribute::kClass, secret_key), of(attribute::kKeyType, aes),
                            of(attribute::kValueLength, length), of(attribute::kToken, yes),
                            of(attribute::kPrivate, yes),      of(attribute::kSensitive, yes),
                            of(attribute::kExtractable, no),   of(attribute::kModifiable, yes),
                            of(attribute::kWrap, yes),         of(attribute::kUnwrap, yes),
                            of(attribute::kEncrypt, no),       of(attribute::kDecrypt, no),
                            of(attribute::kSign, no),          of(attribute::kVerify, no),
                            of(attribute::kDerive, no),        of(attribute::kId, id),
                            of(attribute::kLabel, label)};
  Ulong object = 0;
  expect("make a key", kGenerateKey, session_, &mechanism, static_cast<Attribute*>(attributes),
         static_cast<Ulong>(sizeof attributes / sizeof attributes[0]), &object);
  check(object);
}

void Token::update(const std::string& id, const std::string& label, bool may_wrap, bool may_unwrap) {
  Attribute attributes[] = {of(attribute::kLabel, label), of(attribute::kWrap, may_wrap ? yes : no),
                            of(attribute::kUnwrap, may_unwrap ? yes : no)};
  expect("change a key", kSetAttributeValue, session_, key(id), static_cast<Attribute*>(attributes), 3UL);
}

void Token::destroy(const std::string& id) { expect("destroy a key", kDestroyObject, session_, key(id)); }

}  // namespace hushgrad::pkcs11

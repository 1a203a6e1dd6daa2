// One token of one PKCS#11 module, inside the helper process.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "dpcore/keys/pkcs11_helper/cryptoki.h"

namespace hushgrad::pkcs11 {

/// What goes back to the other process: a kind of pkcs11_wire.h and a text without secrets.
struct Failure : std::runtime_error {
  Failure(std::string kind, const std::string& text) : std::runtime_error(text), kind(std::move(kind)) {}
  std::string kind;
};

/// Keys are AES-256, made on the token, never extractable, and may only wrap and unwrap. Each use checks that again: a
/// token that says otherwise is refused.
class Token {
 public:
  /// Loads `module`, opens a session on the one token labelled `label` and logs in.
  Token(const std::string& module, const std::string& label, const std::string& pin);

  struct Entry {
    std::string id, label;
  };
  std::vector<Entry> list();
  /// AES-256-KWP of `key` under the token's key: the key is made a session object, wrapped and destroyed.
  std::string wrap(const std::string& id, const std::string& key);
  std::string unwrap(const std::string& id, const std::string& wrapped);
  void generate(const std::string& id, const std::string& label);
  void update(const std::string& id, const std::string& label, bool may_wrap, bool may_unwrap);
  void destroy(const std::string& id);

 private:
  template <typename... Arguments>
  Result call(Function function, Arguments... arguments) const;
  template <typename... Arguments>
  void expect(const char* what, Function function, Arguments... arguments) const;

  Ulong find_token(const std::string& label) const;
  std::vector<Ulong> find(std::vector<Attribute> pattern) const;
  Ulong key(const std::string& id) const;
  void check(Ulong key) const;
  bool flag(Ulong object, Ulong type) const;
  Ulong number(Ulong object, Ulong type) const;
  std::string bytes(Ulong object, Ulong type) const;
  std::string wrap_with(Ulong key, const std::string& data_key) const;
  bool works(Ulong key) const;

  FunctionList* functions_ = nullptr;
  Ulong session_ = 0;
  Ulong mechanism_ = 0;
};

}  // namespace hushgrad::pkcs11

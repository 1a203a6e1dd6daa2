// The process that holds a PKCS#11 module, so that a module that hangs or crashes takes nothing else with it. Started by
// dpcore/keys/pkcs11_client.cpp with a socket as descriptor 3; ends when the socket does. Takes no arguments.
#include <sys/prctl.h>
#include <sys/resource.h>

#include <cerrno>
#include <memory>

#include "dpcore/keys/pkcs11_helper/token.h"
#include "dpcore/keys/pkcs11_wire.h"

namespace {

using namespace hushgrad::pkcs11;

constexpr unsigned kLongestCall = 600;  // seconds; the other side gives up far earlier, unless it was killed

bool read_all(std::string& out, std::size_t size) {
  out.assign(size, '\0');
  for (std::size_t done = 0; done < size;) {
    const ssize_t count = ::read(kHelperSocket, out.data() + done, size - done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    done += static_cast<std::size_t>(count);
  }
  return true;
}

bool write_all(const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t count = ::send(kHelperSocket, text.data() + done, text.size() - done, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    done += static_cast<std::size_t>(count);
  }
  return true;
}

Message answer(std::unique_ptr<Token>& token, const Message& request) {
  const std::string& operation = request[0];
  const auto given = [&](std::size_t count) {
    if (request.size() != count + 1) throw Failure("device", "Expected another number of arguments.");
    return true;
  };
  if (operation == "open" && given(3)) {
    token = std::make_unique<Token>(request[1], request[2], request[3]);
    return {"ok"};
  }
  if (token == nullptr) throw Failure("device", "Expected an open token.");
  if (operation == "wrap" && given(2)) return {"ok", token->wrap(request[1], request[2])};
  if (operation == "unwrap" && given(2)) return {"ok", token->unwrap(request[1], request[2])};
  if (operation == "generate" && given(2)) token->generate(request[1], request[2]);
  if (operation == "update" && given(4)) token->update(request[1], request[2], request[3] == "1", request[4] == "1");
  if (operation == "destroy" && given(1)) token->destroy(request[1]);
  if (operation != "list") return {"ok"};
  Message entries{"ok"};
  for (const Token::Entry& entry : token->list()) {
    entries.push_back(entry.id);
    entries.push_back(entry.label);
  }
  return entries;
}

}  // namespace

int main() {
  ::prctl(PR_SET_DUMPABLE, 0);
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
  std::unique_ptr<Token> token;
  std::string head, body;
  Message request;
  while (read_all(head, 4)) {
    const std::size_t size = number_at(head, 0);
    if (size > kMaxMessage || !read_all(body, size) || !decode(body, request)) break;
    wipe(body);
    ::alarm(kLongestCall);
    Message reply;
    try {
      reply = answer(token, request);
    } catch (const Failure& failure) {
      reply = {failure.kind, failure.what()};
    } catch (const std::exception&) {
      reply = {"device", "Expected the module to answer, received an exception."};
    }
    ::alarm(0);
    wipe(request);
    std::string text = encoded(reply);
    const bool sent = write_all(text);
    wipe(text);
    wipe(reply);
    if (!sent) break;
  }
  ::_exit(0);  // no C_Finalize: SoftHSM 2.6.1 crashes at exit under OpenSSL 3
}

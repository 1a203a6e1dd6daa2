#include "accounting/ledger/note.h"

#include <gtest/gtest.h>

#include "dpcore/error.h"

namespace hushgrad {
namespace {

// The example of golang.org/x/mod/sumdb/note, the implementation that the specification was written from.
constexpr const char* kGoSigner = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
constexpr const char* kGoVerifier = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
constexpr const char* kGoText =
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
constexpr const char* kGoNote =
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    "\n\xe2\x80\x94 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

TEST(SignedNote, IsTheNoteOfTheGoPackage) {
  EXPECT_EQ(sign_note(kGoText, kGoSigner), kGoNote);  // Ed25519 is deterministic
  EXPECT_EQ(open_note(kGoNote, kGoVerifier), kGoText);
}

TEST(SignedNote, EveryChangedByteIsNoticed) {
  const NoteKeys keys = make_note_keys("witness.example");
  const std::string note = sign_note("a\nb\n", keys.signer);
  ASSERT_EQ(open_note(note, keys.verifier), "a\nb\n");
  for (std::size_t i = 0; i < note.size(); ++i) {
    for (const char flip : {1, 2, 32}) {
      std::string changed = note;
      changed[i] = static_cast<char>(changed[i] ^ flip);
      EXPECT_THROW(open_note(changed, keys.verifier), Error) << i;
    }
    EXPECT_THROW(open_note(note.substr(0, i), keys.verifier), Error) << i;
  }
}

TEST(SignedNote, SignaturesOfOthersAreSkippedAndOneIsNeeded) {
  const NoteKeys a = make_note_keys("a"), b = make_note_keys("b"), other_a = make_note_keys("a");
  const std::string by_a = sign_note("text\n", a.signer), by_b = sign_note("text\n", b.signer);
  const std::string both = by_a + by_b.substr(by_b.find("\n\n") + 2);
  EXPECT_EQ(open_note(both, a.verifier), "text\n");
  EXPECT_EQ(open_note(both, b.verifier), "text\n");
  EXPECT_THROW(open_note(by_a, b.verifier), LedgerError);
  EXPECT_THROW(open_note(by_a, other_a.verifier), LedgerError);
}

TEST(SignedNote, OtherFormsAreRefused) {
  const NoteKeys keys = make_note_keys("w");
  for (const char* text : {"", "no line feed", "nul \x01\n", "carriage\r\n"}) EXPECT_THROW(sign_note(text, keys.signer), InvalidArgument);
  EXPECT_THROW(sign_note("t\n", keys.verifier), InvalidArgument);
  EXPECT_THROW(sign_note("t\n", std::string(kGoSigner).replace(25, 1, "0")), InvalidArgument);
  EXPECT_THROW(make_note_keys(""), InvalidArgument);
  EXPECT_THROW(make_note_keys("a b"), InvalidArgument);
  EXPECT_THROW(make_note_keys("a+b"), InvalidArgument);
}

TEST(SignedNote, AHeadComesBackAndBelongsToItsLedger) {
  const LedgerHead head{17, std::string(96, 'a')};
  const std::string id(32, '1'), text = head_text(id, head);
  EXPECT_EQ(head_in(text, id).sequence, 17);
  EXPECT_EQ(head_in(text, id).hash, head.hash);
  EXPECT_THROW(head_in(text, std::string(32, '2')), LedgerError);
  for (const char* bad : {"", "hushgrad-ledger/x\n", "x\n1\nAAAA\n", "hushgrad-ledger/x\n017\nAAAA\n"}) {
    EXPECT_THROW(head_in(bad, "x"), InvalidArgument);
  }
}

}  // namespace
}  // namespace hushgrad

// A PostgreSQL server of its own for a test, on a socket in a temporary folder. The server refuses to run as root, so root
// starts it as the user postgres of the Debian package.
#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "accounting/ledger/temporary_folder.h"

namespace hushgrad::ledger_test {

class PostgresServer {
 public:
  PostgresServer() {
    for (const auto* root : {"/usr/lib/postgresql", "/usr/local/pgsql", "/usr/pgsql"}) {
      if (!std::filesystem::exists(root)) continue;
      for (const auto& folder : std::filesystem::recursive_directory_iterator(root)) {
        if (folder.path().filename() == "initdb") programs_ = folder.path().parent_path().string();
      }
    }
    if (programs_.empty()) {
      why_ = "no initdb here (Debian: apt-get install postgresql)";
      return;
    }
    std::filesystem::permissions(folder_.path(), std::filesystem::perms::all);
    const bool made = run("initdb -D " + data() + " -A trust -U postgres -E UTF8 --locale=C.UTF-8 --no-sync") && start();
    if (!made) why_ = "initdb or pg_ctl failed: " + log();
  }
  ~PostgresServer() {
    if (why_.empty()) run("pg_ctl -D " + data() + " -m immediate -w stop");
    if (geteuid() == 0) run_as("rm -rf " + data() + " " + data() + ".old");
  }

  /// Empty when it runs; otherwise why it does not.
  const std::string& why_not() const { return why_; }
  bool start() { return run("pg_ctl -D " + data() + " -w -l " + (folder_ / "log") + " -o \"-k " + folder_.path().string() + " -h '' -c recovery_init_sync_method=syncfs\" start"); }
  /// As a power cut to the server: every connection is lost, nothing is flushed beyond what was promised.
  bool stop_immediately() { return run("pg_ctl -D " + data() + " -m immediate -w stop"); }
  /// A copy of the stopped server's files, and back: as an older base backup that somebody restores.
  bool back_up() { return run_as("rm -rf " + data() + ".old") && run_as("cp -a " + data() + " " + data() + ".old"); }
  bool restore() { return run_as("rm -rf " + data()) && run_as("cp -a " + data() + ".old " + data()); }
  /// Where it listens.
  std::string socket() const { return folder_ / ".s.PGSQL.5432"; }
  bool sql(const std::string& database, const std::string& text) {
    std::ofstream(folder_ / "script.sql") << text;
    return run("psql -q -v ON_ERROR_STOP=1 -h " + folder_.path().string() + " -U postgres -d " + database + " -f " + (folder_ / "script.sql"));
  }
  /// A new, empty database.
  std::string make_database(const std::string& name) {
    sql("postgres", "CREATE DATABASE " + name);
    return address(name);
  }
  std::string address(const std::string& name, const std::string& user = "postgres") const {
    std::string host;
    for (const char c : folder_.path().string()) host += c == '/' ? std::string("%2F") : std::string(1, c);
    return "postgresql://" + user + "@" + host + "/" + name;
  }
  std::string log() const {
    std::ifstream file(folder_ / "out");
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  std::string data() const { return folder_ / "data"; }
  bool run(const std::string& command) { return run_as(programs_ + "/" + command); }
  bool run_as(const std::string& command) {
    const std::string as = geteuid() == 0 ? "runuser -u postgres -- " : "";
    return std::system(("cd / && " + as + command + " > " + (folder_ / "out") + " 2>&1 < /dev/null").c_str()) == 0;
  }

  TemporaryFolder folder_;
  std::string programs_, why_;
};

}  // namespace hushgrad::ledger_test

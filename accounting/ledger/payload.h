// The payload of each kind of entry, written and read as canonical JSON: keys sorted, no white space, integers as
// integers, other numbers as the shortest decimal that reads back to the same double.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "accounting/event.h"
#include "accounting/ledger/dataset_info.h"
#include "accounting/ledger/records.h"

namespace hushgrad::ledger {

constexpr std::string_view kGenesis = "genesis";
constexpr std::string_view kBudget = "budget";
constexpr std::string_view kRun = "run";
constexpr std::string_view kEvent = "event";
constexpr std::string_view kCharge = "charge";
constexpr std::string_view kReserve = "reserve";
constexpr std::string_view kSettle = "settle";
constexpr std::string_view kRefusal = "refusal";
constexpr std::string_view kFinish = "finish";
constexpr std::string_view kMigration = "migration";
constexpr std::string_view kDataset = "dataset";

struct GenesisPayload { std::string ledger_id; std::int64_t schema = 0; };
struct RunPayload { std::string run_id; RunInfo info; };
struct EventPayload { std::string run_id; Event event; };                                   // described once a run
struct ChargePayload { std::int64_t event_sequence = 0; };                                  // one a step
struct ReservePayload { std::int64_t event_sequence = 0, count = 0; std::string holder; };       // a block of steps
struct SettlePayload { std::int64_t reservation = 0, used = 0; };                            // what became of it
struct RefusalPayload { std::string run_id; std::int64_t budget_sequence = 0; Event event; };
struct FinishPayload { std::string run_id, status; };
struct MigrationPayload { std::int64_t from = 0, to = 0; };

std::string encode(const GenesisPayload& payload);
/// As schema 1 wrote it when it says no more than that.
std::string encode(const BudgetLimit& payload);
std::string encode(const DatasetInfo& payload);
std::string encode(const LedgerRecord& payload);
std::string encode(const RunPayload& payload);
std::string encode(const EventPayload& payload);
std::string encode(const ChargePayload& payload);
std::string encode(const RefusalPayload& payload);
std::string encode(const FinishPayload& payload);
std::string encode(const ReservePayload& payload);
std::string encode(const SettlePayload& payload);
std::string encode(const MigrationPayload& payload);

/// Each throws InvalidArgument for text that is not JSON, for a missing or extra key, and for a value of the wrong type
/// or outside its domain.
GenesisPayload decode_genesis(const std::string& text);
BudgetLimit decode_budget(const std::string& text);
DatasetInfo decode_dataset(const std::string& text);
/// Also for an unknown kind.
LedgerRecord decode_record(const std::string& kind, const std::string& text);

/// Throws InvalidArgument for what the decoders would not take.
void check(const BudgetLimit& limit);
void check(const DatasetInfo& info);
void check(const LedgerRecord& record);
bool is_record(std::string_view kind);
/// The schema that knows this kind in this form.
std::int64_t needed_schema(const LedgerRecord& record);
RunPayload decode_run(const std::string& text);
EventPayload decode_event(const std::string& text);
ChargePayload decode_charge(const std::string& text);
RefusalPayload decode_refusal(const std::string& text);
FinishPayload decode_finish(const std::string& text);
ReservePayload decode_reserve(const std::string& text);
SettlePayload decode_settle(const std::string& text);
MigrationPayload decode_migration(const std::string& text);

/// The plan as canonical JSON. Throws InvalidArgument unless it is empty (read as `{}`) or a JSON object of at most
/// 1 MiB, nested at most 64 deep.
std::string canonical_plan(const std::string& plan_json);

}  // namespace hushgrad::ledger

// SPDX-License-Identifier: Apache-2.0
//
// The JSON texts of the handover protocol: what a peer asks for, and what it is answered.
//
// Requests:
//   [MAPPING, ...]                                   Firecracker's handover; never answered
//   {"volume":NAME,"mappings":[MAPPING, ...],
//    "mode":MODE,"register":BOOL,"drain":BOOL,"unregister":BOOL,
//    "prefetch":POLICY,"working_set":USE,"first_pages":[N, ...],
//    "shared_discard":WHAT,"fault_policy":POLICY,
//    "fault_deadline_ms":N,"pidfd":INDEX,
//    "far":FAR}                                    a handover; answered with the attachment's id
//   {"detach":true}                                  ends the attachment made on this connection
//   {"detach":true,"attachment":ID}                  ends that one, of the same process: for a peer
//    whose connection went with an agent that was killed; one that has ended is no error
//   {"far_command":COMMAND,"attachment":ID,...}      what the owner of far memory asks for
//   {"query":"volume","volume":NAME}                 answered with the volume's size
//   {"query":"attachments"}                          answered with the state of every attachment
// MAPPING: {"base_host_virt_addr":N,"size":N,"offset":N,"page_size":N,"memfd":INDEX,
//           "memfd_offset":N}, all in bytes.
// FAR: {"local_memory":N,"policy":NAME,"fresh":BOOL,"make_volume":N,
//       "create_volume":N,"durability":DURABILITY,"from_snapshot":NAME,
//       "helper":{"command":INDEX,"start":N,"size":N,"staging":N,"staging_size":N},"least":N}
// "page_size" may be missing: then "page_size_kib" is taken, which means bytes too, or else 4096.
// "first_pages" (default none) are fetched before all others, whoever faults or not. They are pages
// of the volume, as PageSet::EncodeRuns() makes them of a set: for each run of pages two numbers,
// how many are left out before it and how many it has. "mode" is "lazy" (the default) or "far";
// "register", "unregister" (default false; AttachmentOptions says what it does), "drain",
// "prefetch", "working_set", "shared_discard", "fault_policy" and "fault_deadline_ms" (default as
// the agent's flags of these names), "pidfd" and "memfd" may be missing. INDEX counts the
// descriptors that follow the userfaultfd, from 0.
//
// "pidfd" is for a peer that hands over the memory of another process: a pidfd of that process,
// whose end then is the attachment's, and which dies where the fault policy says so. (Not its
// number, which may come to mean another process while the text is under way.) Anybody can have a
// pidfd of anybody, so the agent asks for more: the peer must be root or the user that the process
// runs as, so that it could kill the process itself. See HandoverTarget in peer_process.h.
//
// "far" goes with "mode":"far", and with "register":true: far memory, whose pages leave where there
// is no room for them, and are written to the volume. "local_memory" is the budget in bytes
// (default as the agent's --local-memory, as is that of "policy"), "fresh" says that nothing in the
// volume is of worth: all begins as zeros. With "make_volume" the agent makes a volume of so many
// bytes for it, whose name begins with "volume", and deletes it in the end. With "create_volume" it
// makes the volume, of so many bytes, with "from_snapshot" it makes it a clone of that snapshot; it
// stays, unless the handover fails. DURABILITY is "sync" (the default), "interval" or "none". Far
// memory is of one of two kinds:
//   - mappings of files in memory, each with its "memfd", which the agent takes pages out of by
//     itself; "memfd_offset" (default 0) is where in the file the mapping begins
//   - with "helper", the private anonymous memory of the whole process, as far as its areas have
//     "least" bytes each (default 128 KiB); "mappings" is empty or missing then. It tells where the
//     eviction helper has its command memory, a descriptor, its other memory and, in that, its
//     staging area (far/eviction_helper.h)
//
// COMMAND is for an attachment of the same process, on whatever connection but that of the
// handover: answers come when it is done, so that one at a time would wait for the other.
//   "will_need", "will_not_need", "pin", "unpin"   with "offset" and "length" in the volume, bytes
//   "flush"
//   "checkpoint"                                   with "snapshot", the new name
// "timeout_ms" (default 60000) is when it fails at the latest; FarCommand has what each does.
//
// In Firecracker's form unknown keys are ignored, since its newer versions add some; in ours they
// are errors. In both, a key that stands twice is one.
#ifndef FAULTLINE_CLIENT_ATTACH_HANDOVER_MESSAGE_H_
#define FAULTLINE_CLIENT_ATTACH_HANDOVER_MESSAGE_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "client/attachment.h"
#include "client/evict/far_command.h"
#include "client/source/page_sink.h"
#include "client/uffd/uffd.h"

namespace faultline {

// Bounds on what a peer may send.
inline constexpr size_t kMaxHandoverBytes = size_t{1} << 20;
inline constexpr size_t kMaxHandoverMappings = 4096;
// The userfaultfd and the descriptors that follow it.
inline constexpr size_t kMaxHandoverDescriptors = 16;

// What a handover says of far memory.
struct FarRequest {
  std::optional<uint64_t> local_memory;  // bytes
  std::optional<std::string> policy;
  bool fresh = false;
  uint64_t make_volume = 0;  // bytes; 0: the volume is there
  // The volume is to be made, and stays.
  std::optional<NewVolume> new_volume;
  struct File {
    size_t memfd;     // which of the descriptors
    size_t mapping;   // which of the mappings
    uint64_t offset;  // in the file
  };
  std::vector<File> files;
  // Of all anonymous memory of the process.
  struct Helper {
    size_t command;  // which of the descriptors
    AddressRange memory, staging;
    uint64_t least;
  };
  std::optional<Helper> helper;
};

struct HandoverRequest {
  enum class Kind { kFirecracker, kAttach, kDetach, kFarCommand, kQueryVolume, kQueryAttachments };

  Kind kind = Kind::kAttach;
  std::string volume;                      // of kAttach and kQueryVolume
  std::optional<AttachmentId> attachment;  // of kDetach (none: the connection's) and kFarCommand
  FarCommand command;                      // of kFarCommand, but for its deadline
  absl::Duration command_timeout;
  std::vector<Mapping> mappings;  // of kFirecracker and kAttach; not checked by CheckMappings yet
  bool register_ranges = false;
  bool unregister = false;
  std::optional<bool> drain;  // none: as the agent has been told
  std::optional<PrefetchPolicy> prefetch;
  std::optional<WorkingSetUse> working_set;
  std::vector<uint64_t> first_pages;
  std::optional<SharedDiscard> shared_discard;
  std::optional<FaultPolicy> fault_policy;
  std::optional<absl::Duration> fault_deadline;
  // Which of the descriptors that follow the userfaultfd tells the target; none: it is the peer.
  std::optional<size_t> pidfd;
  std::optional<FarRequest> far;  // none: "mode":"lazy"
  // How many descriptors follow the userfaultfd: as many as the request names. Those of mappings
  // are not needed to fill memory with UFFDIO_COPY, which is how this version does it.
  size_t further_descriptors = 0;
};

// Whether `text` begins as a handover in Firecracker's form does: its peer takes no answer.
inline bool IsFirecrackerForm(absl::string_view text) { return !text.empty() && text[0] == '['; }

// INVALID_ARGUMENT, saying what is wrong and where, for anything that is not a request;
// UNIMPLEMENTED for what the protocol knows and this version does not do.
absl::StatusOr<HandoverRequest> ParseHandover(absl::string_view text);

// The answers. One line of JSON each, with its line feed.
std::string AttachedReply(AttachmentId id);
std::string DoneReply();
std::string VolumeReply(uint64_t size_bytes);
// The fields of AttachmentStats by their names.
std::string AttachmentsReply(const std::vector<AttachmentStats>& attachments);
std::string ErrorReply(absl::string_view message);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_ATTACH_HANDOVER_MESSAGE_H_

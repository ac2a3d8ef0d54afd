/*
 * A batching strategy for Triton's dynamic batcher: bounds a batch by tokens, and keeps requests without elements
 * in a batch of their own.
 *
 * Triton loads it as <model>/<version>/batchstrategy.so (API of tritonbackend.h, "TRITONBACKEND Batching"). One
 * scheduler thread per model calls it. What follows from Triton's dynamic_batch_scheduler.cc (24.10 to 26.06):
 *
 *  - Requests are offered in arrival order. Refusing one after another was accepted closes the batch.
 *  - A batch that waits for a free instance may grow. Triton then initialises the strategy again, with the address
 *    of the same batch's user pointer; a new batch always has another address, because the old one is still held.
 *    So the address tells whether requests offered now join a batch that this strategy has counted already.
 *  - Without a queue delay, whatever was accepted joins the batch at once. With one, a batch that has not been sent is
 *    evaluated again from its first request: requests accepted before are offered again, unless they were cancelled.
 *  - Refusing the first request offered to a waiting batch makes the scheduler thread poll until the batch runs.
 *    That costs CPU time, so a batch is closed from three quarters of its budget on wherever that needs no poll.
 *
 * The bound: a batch holds at most max_batch_tokens tokens, or one request that is larger by itself. There are two
 * exceptions. A batch that has waited for an instance for more than 30 s takes the request that it refused. Where a
 * queue delay is configured, requests whose callers cancelled them may come on top.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The part of Triton's C API that is used; every type is opaque. */
typedef struct Error Error;
typedef struct Message Message;
typedef struct Model Model;
typedef struct Request Request;
typedef struct Input Input;

enum { ERROR_INVALID_ARG = 3, ERROR_UNSUPPORTED = 5, LOG_WARN = 1, MEMORY_GPU = 2, API_MAJOR = 1 };

extern Error *TRITONSERVER_ErrorNew(int code, const char *message);
extern void TRITONSERVER_ErrorDelete(Error *error);
extern Error *TRITONSERVER_LogMessage(int level, const char *file, int line, const char *message);
extern Error *TRITONSERVER_MessageSerializeToJson(Message *message, const char **base, size_t *size);
extern Error *TRITONSERVER_MessageDelete(Message *message);
extern Error *TRITONBACKEND_ApiVersion(uint32_t *major, uint32_t *minor);
extern Error *TRITONBACKEND_ModelConfig(Model *model, uint32_t config_version, Message **config);
extern Error *TRITONBACKEND_RequestIsCancelled(Request *request, bool *cancelled);
extern Error *TRITONBACKEND_RequestInput(Request *request, const char *name, Input **input);
extern Error *TRITONBACKEND_InputProperties(Input *input, const char **name, uint32_t *datatype, const int64_t **shape,
                                            uint32_t *dims, uint64_t *byte_size, uint32_t *buffers);
extern Error *TRITONBACKEND_InputBuffer(Input *input, uint32_t index, const void **buffer, uint64_t *byte_size,
                                        int *memory_type, int64_t *memory_type_id);

#ifndef SOURCE_SHA256
#define SOURCE_SHA256 "unknown"
#endif
/* lets a test see that the binary was built from this file */
const char qwen3_triton_batch_strategy_source[] = "batch_strategy.c sha256:" SOURCE_SHA256;

static const char INPUT_IDS[] = "input_ids";
/* A request refused for longer is accepted: a second line against waiting for a batch that no longer exists. */
static const int64_t LONGEST_REFUSAL_NS = 30 * INT64_C(1000000000);

typedef struct {
  int64_t tokens;
  int64_t rows;
  int64_t width; /* of the widest row */
  int64_t requests;
  bool isolated; /* holds a request without elements */
} Totals;

typedef struct {
  int64_t max_tokens;
  int64_t max_cells; /* rows x widest row; 0: no limit */
  bool delays;       /* batches may wait for a queue delay */

  const void *batch; /* address of the user pointer of the batch being filled */
  Totals settled;    /* requests that are certainly in the batch */
  Totals offered;    /* settled, and the requests accepted in the present evaluation */
  bool started;      /* a request was offered in the present evaluation */
  bool kept;         /* not all requests of the last evaluation had been cancelled when this one began */
  Request **seen;    /* with a delay: accepted in the last evaluation; alive as long as their batch has not run */
  size_t seen_count, seen_capacity;

  Request *refused; /* first request refused by a waiting batch, and since when */
  int64_t refused_since_ns;
} Batcher;

static bool failed(Error *error) {
  if (error == NULL) return false;
  TRITONSERVER_ErrorDelete(error);
  return true;
}

static int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* ---- counting ---- */

static int64_t count_tokens(Input *input, uint32_t buffers, int64_t elements) {
  int64_t tokens = 0;
  for (uint32_t index = 0; index < buffers; ++index) {
    const void *buffer;
    uint64_t size;
    int memory;
    int64_t device;
    if (failed(TRITONBACKEND_InputBuffer(input, index, &buffer, &size, &memory, &device)) || memory == MEMORY_GPU)
      return elements;
    const char *ids = buffer;
    for (uint64_t at = 0; at + sizeof(int64_t) <= size; at += sizeof(int64_t)) {
      int64_t id; /* a buffer in shared memory may not be aligned */
      memcpy(&id, ids + at, sizeof id);
      tokens += id >= 0;
    }
  }
  return tokens;
}

/* What `request` would add to a batch. Ids of requests beyond `worth_reading` are not read: padding counts there. */
static Totals measure(Request *request, int64_t worth_reading) {
  Totals totals = {.requests = 1, .isolated = true};
  Input *input;
  const int64_t *shape;
  uint32_t dims, buffers;
  uint64_t size;
  if (failed(TRITONBACKEND_RequestInput(request, INPUT_IDS, &input)) ||
      failed(TRITONBACKEND_InputProperties(input, NULL, NULL, &shape, &dims, &size, &buffers)) || dims == 0)
    return totals;
  int64_t elements = 1;
  for (uint32_t axis = 0; axis < dims; ++axis) elements *= shape[axis];
  totals.rows = shape[0];
  if (elements <= 0 || size == 0 || buffers == 0) return totals;
  totals.isolated = false;
  totals.width = elements / shape[0];
  totals.tokens = elements > worth_reading ? elements : count_tokens(input, buffers, elements);
  return totals;
}

static Totals sum(const Totals *a, const Totals *b) {
  return (Totals){
      .tokens = a->tokens + b->tokens,
      .rows = a->rows + b->rows,
      .width = a->width > b->width ? a->width : b->width,
      .requests = a->requests + b->requests,
      .isolated = a->isolated || b->isolated,
  };
}

static bool fits(const Batcher *batcher, const Totals *totals) {
  if (totals->isolated) return totals->requests == 1;
  return totals->tokens <= batcher->max_tokens &&
         (batcher->max_cells == 0 || totals->rows * totals->width <= batcher->max_cells);
}

/* ---- which batch the offered requests belong to ---- */

static void remember(Batcher *batcher, Request *request) {
  if (batcher->seen_count == batcher->seen_capacity) {
    size_t capacity = batcher->seen_capacity ? 2 * batcher->seen_capacity : 64;
    Request **grown = realloc(batcher->seen, capacity * sizeof *grown);
    if (grown == NULL) return; /* the request then counts as new when it is offered again */
    batcher->seen = grown;
    batcher->seen_capacity = capacity;
  }
  batcher->seen[batcher->seen_count++] = request;
}

static bool any_not_cancelled(const Batcher *batcher) {
  for (size_t index = 0; index < batcher->seen_count; ++index) {
    bool cancelled = false;
    if (!failed(TRITONBACKEND_RequestIsCancelled(batcher->seen[index], &cancelled)) && !cancelled) return true;
  }
  return false;
}

static bool was_seen(const Batcher *batcher, const Request *request) {
  for (size_t index = 0; index < batcher->seen_count; ++index)
    if (batcher->seen[index] == request) return true;
  return false;
}

/* Settle the last evaluation when the first request of this one shows what became of it. */
static void start_evaluation(Batcher *batcher, const Request *first) {
  if (!batcher->delays)
    batcher->settled = batcher->offered;
  else if (!batcher->kept && batcher->settled.requests == 0)
    batcher->offered = batcher->settled; /* every request was cancelled before it reached the batch */
  else if (was_seen(batcher, first))
    batcher->offered = batcher->settled; /* nothing was sent: the same requests are offered again */
  else
    batcher->settled = batcher->offered; /* all of it went into the batch, which waits and may grow */
  batcher->seen_count = 0;
  batcher->started = true;
}

/* ---- decisions ---- */

/* Whether a waiting batch may refuse `first`; the scheduler polls until the batch runs. */
static bool may_refuse_first(Batcher *batcher, Request *first) {
  int64_t now = now_ns();
  if (batcher->refused != first) {
    batcher->refused = first;
    batcher->refused_since_ns = now;
  }
  if (now - batcher->refused_since_ns < LONGEST_REFUSAL_NS) return true;
  failed(TRITONSERVER_LogMessage(LOG_WARN, __FILE__, __LINE__,
                                 "a batch has waited for more than 30 s; it takes a request beyond its budget"));
  return false;
}

static bool accepts(Batcher *batcher, Request *request) {
  bool first = !batcher->started;
  if (first) start_evaluation(batcher, request);
  Totals one = measure(request, batcher->max_tokens);
  Totals all = sum(&batcher->offered, &one);
  if (first) { /* always accepted by an empty batch */
    bool waiting = batcher->settled.requests > 0;
    if (waiting && !fits(batcher, &all) && may_refuse_first(batcher, request)) return false;
  } else if (batcher->offered.tokens >= batcher->max_tokens / 4 * 3 || !fits(batcher, &all)) {
    return false;
  }
  batcher->refused = NULL;
  batcher->offered = all;
  if (batcher->delays) remember(batcher, request);
  return true;
}

/* ---- configuration ---- */

/* The whole number that follows `opening` in `json`, up to `end`; -1 where there is none. */
static int64_t read_number(const char *json, size_t size, const char *opening, char end) {
  size_t length = strlen(opening);
  for (size_t at = 0; at + length < size; ++at) {
    if (memcmp(json + at, opening, length) != 0) continue;
    int64_t value = 0;
    size_t digit = at + length;
    for (; digit < size && json[digit] >= '0' && json[digit] <= '9' && value < INT64_MAX / 16; ++digit)
      value = 10 * value + (json[digit] - '0');
    return digit > at + length && digit < size && json[digit] == end ? value : -1;
  }
  return -1;
}

static Error *read_config(Model *model, Batcher *batcher) {
  Message *config;
  const char *json;
  size_t size;
  Error *error = TRITONBACKEND_ModelConfig(model, 1, &config);
  if (error != NULL) return error;
  error = TRITONSERVER_MessageSerializeToJson(config, &json, &size);
  if (error == NULL) {
    /* quotes inside other parameters are escaped, so these match the keys alone */
    batcher->max_tokens = read_number(json, size, "\"max_batch_tokens\":{\"string_value\":\"", '"');
    batcher->max_cells = read_number(json, size, "\"max_batch_cells\":{\"string_value\":\"", '"');
    batcher->delays = read_number(json, size, "\"max_queue_delay_microseconds\":", ',') != 0;
  }
  failed(TRITONSERVER_MessageDelete(config));
  if (error != NULL) return error;
  if (batcher->max_tokens < 1)
    return TRITONSERVER_ErrorNew(ERROR_INVALID_ARG,
                                 "batchstrategy.so: set the parameter max_batch_tokens in config.pbtxt to a whole number "
                                 "above 0, or remove the library from the model's version directory");
  if (batcher->max_cells < 0) batcher->max_cells = 0;
  return NULL;
}

/* ---- Triton's entry points ---- */

#define EXPORT __attribute__((visibility("default")))

EXPORT Error *TRITONBACKEND_ModelBatcherInitialize(Batcher **result, Model *model) {
  uint32_t major, minor;
  Error *error = TRITONBACKEND_ApiVersion(&major, &minor);
  if (error != NULL) return error;
  if (major != API_MAJOR)
    return TRITONSERVER_ErrorNew(ERROR_UNSUPPORTED,
                                 "batchstrategy.so: written for version 1 of Triton's backend API; export again with a "
                                 "newer qwen3-triton, or remove the library from the model's version directory");
  Batcher *batcher = calloc(1, sizeof *batcher);
  if (batcher == NULL) return TRITONSERVER_ErrorNew(ERROR_INVALID_ARG, "batchstrategy.so: out of memory");
  error = read_config(model, batcher);
  if (error != NULL) {
    free(batcher);
    return error;
  }
  *result = batcher;
  return NULL;
}

EXPORT Error *TRITONBACKEND_ModelBatcherFinalize(Batcher *batcher) {
  if (batcher != NULL) free(batcher->seen);
  free(batcher);
  return NULL;
}

EXPORT Error *TRITONBACKEND_ModelBatchInitialize(const Batcher *shared, void **user_pointer) {
  Batcher *batcher = (Batcher *)shared; /* only the scheduler's thread comes here */
  if (batcher->batch != user_pointer) {
    batcher->batch = user_pointer;
    batcher->settled = batcher->offered = (Totals){0};
    batcher->seen_count = 0;
    batcher->kept = false;
  } else if (batcher->started && batcher->delays) {
    batcher->kept = any_not_cancelled(batcher);
  }
  batcher->started = false;
  *user_pointer = batcher;
  return NULL;
}

EXPORT Error *TRITONBACKEND_ModelBatchIncludeRequest(Request *request, void *user_pointer, bool *should_include) {
  *should_include = accepts(user_pointer, request);
  return NULL;
}

EXPORT Error *TRITONBACKEND_ModelBatchFinalize(void *user_pointer) {
  (void)user_pointer; /* belongs to the model, and outlives its batches */
  return NULL;
}

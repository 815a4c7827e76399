/* Small helpers over json-c, and control messages (BEAT, PLAN) whose body is JSON text. */
#ifndef PN_COMMON_JSON_H
#define PN_COMMON_JSON_H

#include <json-c/json.h>
#include "common/wire.h"

/* Parses whole text, depth at most 24, nothing behind it. NULL and a line of error when bad. Free: json_object_put. */
struct json_object *pn_json_parse(const char *text, size_t n_bytes, struct pn_error *);
/* Fields of an object with a default for missing or wrong type; the string lives as long as the object. o may be NULL. */
uint64_t pn_json_u64(struct json_object *o, const char *key, uint64_t otherwise);
double pn_json_double(struct json_object *o, const char *key, double otherwise);
bool pn_json_bool(struct json_object *o, const char *key, bool otherwise);
const char *pn_json_str(struct json_object *o, const char *key, const char *otherwise);
struct json_object *pn_json_get(struct json_object *o, const char *key);   /* NULL when missing; borrowed */
size_t pn_json_length(struct json_object *array);                          /* 0 for NULL or no array */
struct json_object *pn_json_at(struct json_object *array, size_t i);       /* borrowed, NULL when out of range */
/* Adds (o must be an object). */
void pn_json_add_u64(struct json_object *o, const char *key, uint64_t v);
void pn_json_add_double(struct json_object *o, const char *key, double v);
void pn_json_add_bool(struct json_object *o, const char *key, bool v);
void pn_json_add_str(struct json_object *o, const char *key, const char *v);
void pn_json_add(struct json_object *o, const char *key, struct json_object *v_taken);
/* The text of o on one line, plain; lives as long as o and until the next call on it. */
const char *pn_json_text(struct json_object *o);

/* A sealed control message with o as its body (o is not taken). NULL: no memory. */
struct pn_msg *pn_control_write(struct pn_env *, enum pn_kind, uint64_t epoch, uint64_t revision, struct json_object *o);
/* The JSON of a control frame; NULL with a line when bad. */
struct json_object *pn_control_read(const struct pn_frame *, struct pn_error *);

#endif

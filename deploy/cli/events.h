/* TensorBoard event files: one a run, of numbers by tag and step. Each call ends the process with a line when it cannot be done. */
#ifndef PN_DEPLOY_CLI_EVENTS_H
#define PN_DEPLOY_CLI_EVENTS_H

#include <stdint.h>

struct events;
/* FOLDER/JOB/RUN/events.out.tfevents...; run may have slashes, other characters than letters, digits, '-', '_' and '.' become '_'. Written beside and renamed by close. */
struct events *events_open(const char *folder, const char *job, const char *run);
/* tag: at most 100 characters. seconds: since the job began (TensorBoard's axis "relative"). A value that is no number is left out. */
void events_add(struct events *, const char *tag, double seconds, uint64_t step, double value);
void events_close(struct events *);

#endif

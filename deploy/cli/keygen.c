/* `pinion keygen`: the key pair of a node whose sockets are to be encrypted (common/shell/keys.h). */
#include <stdio.h>
#include <string.h>
#include "common/shell/keys.h"
#include "deploy/cli/cli.h"

int verb_keygen(const struct cli *c) {
    const char *dir = cli_option(c, "keys", "pinion-keys"), *role = cli_option(c, "role", "");
    struct pn_error err;
    int which = 0;
    while (which < PN_KEY_ROLES && strcmp(role, pn_key_role_names[which]) != 0) which++;
    if (which == PN_KEY_ROLES) cli_fail(EXIT_USAGE, "--role %s: coordinator, ps, worker (programs over the client library, too) or serving", role[0] != '\0' ? role : "is missing");
    if (c->n_rest != 1) cli_fail(EXIT_USAGE, "pinion keygen needs one name: that which the node is started with (--name)");
    const enum pn_result r = pn_keys_make(dir, c->rest[0], (enum pn_key_role)which, &err);
    if (r == PN_EXISTS) cli_fail(EXIT_REFUSED, "%s; nothing was changed. Remove it first if the node is to have another key", err.text);
    if (r != PN_OK) cli_fail(r == PN_INVALID ? EXIT_USAGE : EXIT_FAILED, "%s", err.text);
    char key[600], public_key[600];
    snprintf(key, sizeof key, "%s/%s.key", dir, c->rest[0]);
    snprintf(public_key, sizeof public_key, "%s/authorized/%s.pub", dir, c->rest[0]);
    if (c->json) {
        struct json_object *o = json_object_new_object();
        pn_json_add_str(o, "key", key);
        pn_json_add_str(o, "public", public_key);
        puts(pn_json_text(o));
        json_object_put(o);
    } else
        printf("%s              stays on the machine where %s runs\n%s   goes to every machine of the cluster, into the same folder\n", key, c->rest[0], public_key);
    return EXIT_DONE;
}

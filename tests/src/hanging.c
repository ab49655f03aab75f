/* A PKCS#11 module that hands all to SoftHSM's, and whose keys are not found while a file is there: a module that hangs. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A list of functions begins with two bytes of a version; the functions come in the standard's order. */
enum { FUNCTIONS = 68, FIND_OBJECTS_INIT = 26, ENCRYPT_INIT = 29, DECRYPT_INIT = 33 };
struct list { unsigned char version[2]; void *functions[FUNCTIONS]; };
typedef unsigned long (*get_list)(struct list **);
typedef unsigned long (*three)(unsigned long, void *, unsigned long);

static struct list ours, *theirs;

static void hang(void) {
  const char *file = getenv("HSM_HANGS");
  while (file && access(file, F_OK) == 0) usleep(20000);
}

static unsigned long find_init(unsigned long session, void *what, unsigned long count) {
  hang();
  return ((three)theirs->functions[FIND_OBJECTS_INIT])(session, what, count);
}

static unsigned long encrypt_init(unsigned long session, void *how, unsigned long key) {
  hang();
  return ((three)theirs->functions[ENCRYPT_INIT])(session, how, key);
}

static unsigned long decrypt_init(unsigned long session, void *how, unsigned long key) {
  hang();
  return ((three)theirs->functions[DECRYPT_INIT])(session, how, key);
}

unsigned long C_GetFunctionList(struct list **list) {
  void *module = dlopen(getenv("HSM_BEHIND"), RTLD_NOW);
  if (!module) return 5; /* CKR_GENERAL_ERROR */
  get_list get = (get_list)dlsym(module, "C_GetFunctionList");
  if (!get || get(&theirs)) return 5;
  memcpy(&ours, theirs, sizeof ours);
  ours.functions[FIND_OBJECTS_INIT] = find_init;
  ours.functions[ENCRYPT_INIT] = encrypt_init;
  ours.functions[DECRYPT_INIT] = decrypt_init;
  *list = &ours;
  return 0;
}

// Calls kernels in memory that the tests share: `emulated_arm.py` writes the table, and links this file with kernels.
// Usage: runner FILE ADDRESS SIZE. Lines of the input: "protect ADDRESS SIZE", "call NAME COUNT NUMBER...".
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef long (*kernel)(long, long, long, long);
extern struct { const char *name; kernel function; } table[];

int main(int count, char **words) {
  if (count != 4) return 2;
  void *address = (void *)strtoul(words[2], 0, 0);
  int file = open(words[1], O_RDWR);
  if (mmap(address, strtoul(words[3], 0, 0), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) != address) return 3;
  char word[64], name[256];
  while (scanf("%63s", word) == 1) {
    if (!strcmp(word, "protect")) {
      unsigned long at, size;
      if (scanf("%lu %lu", &at, &size) != 2 || mprotect((void *)at, size, PROT_NONE)) return 4;
      continue;
    }
    long numbers[4] = {0}, given, found = 0;
    if (scanf("%255s %ld", name, &given) != 2 || given > 4) return 5;
    for (long i = 0; i < given; i++)
      if (scanf("%ld", &numbers[i]) != 1) return 5;
    for (int i = 0; table[i].name; i++)
      if (!strcmp(table[i].name, name)) {
        found = 1;
        printf("%ld\n", table[i].function(numbers[0], numbers[1], numbers[2], numbers[3]));
      }
    if (!found) return 6;
    fflush(stdout);
  }
  return 0;
}

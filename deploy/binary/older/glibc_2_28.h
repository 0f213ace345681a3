/* Of these functions glibc 2.29 has new versions, which leave out the handling of errors that nobody asks for (SVID). Python asks for nothing that the
   old ones do not do: with them what is built on Debian 11 (2.31) runs on glibc 2.28 as well. */
__asm__(".symver exp,exp@GLIBC_2.2.5");
__asm__(".symver exp2,exp2@GLIBC_2.2.5");
__asm__(".symver log,log@GLIBC_2.2.5");
__asm__(".symver log2,log2@GLIBC_2.2.5");
__asm__(".symver pow,pow@GLIBC_2.2.5");

; The page directory lies in ROM, where the processor cannot set accessed and dirty bits. As on hardware, the write is
; lost and the access goes on.
%include "rom.inc"
main:   mov eax, cr4
        or eax, 1 << 4
        mov cr4, eax
        mov eax, directory + 0xe0000            ; its copy in ROM, F0000 up
        mov cr3, eax
        mov eax, cr0
        or eax, 1 << 31
        mov cr0, eax
        mov ecx, 1000
.loop:  inc dword [FREE]
        mov eax, cr3
        mov cr3, eax
        loop .loop
        say "went on"
        ret
        align 4096
directory:
%assign page 0
%rep 1024
        dd page * 0x400000 + 0x83
%assign page page + 1
%endrep
%include "end.inc"
